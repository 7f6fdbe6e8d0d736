"""The numbers behind the report's figures, against scikit-learn and by hand."""

import itertools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    auc,
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    precision_recall_curve,
    roc_curve,
)

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures import calibration
from ecg_jax.report import chart, curves, gather, projection
from ecg_jax.report.markup import element, escape, join, number, path


@pytest.fixture(params=["distinct", "ties"])
def scored(request) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    y = rng.random(200) < 0.3
    score = y + rng.standard_normal(200)
    return y, np.round(score) if request.param == "ties" else score


def test_roc_is_scikit_learns(scored):
    x, y = curves.roc(*scored)
    expected = roc_curve(*scored, drop_intermediate=False)
    np.testing.assert_allclose([x, y], expected[:2], atol=1e-12)


def test_precision_recall_is_scikit_learns(scored):
    recall, precision = curves.precision_recall(*scored)
    expected_precision, expected_recall, _ = precision_recall_curve(*scored)
    np.testing.assert_allclose(recall[1:], expected_recall[:-1][::-1], atol=1e-12)
    np.testing.assert_allclose(precision[1:], expected_precision[:-1][::-1], atol=1e-12)
    steps = chart.staircase(recall, precision)
    assert auc(*steps) == pytest.approx(average_precision_score(*scored))


def test_platt_is_a_logistic_regression_on_platts_targets(scored):
    y, score = scored
    p = calibration.platt(y, score)
    high, low = (y.sum() + 1) / (y.sum() + 2), 1 / ((~y).sum() + 2)
    target = np.where(y, high, low)
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)
    model.fit(np.tile(score, 2)[:, None], np.repeat([1, 0], len(y)), np.r_[target, 1 - target])
    assert p.slope == pytest.approx(model.coef_[0, 0], rel=1e-4)
    assert p.offset == pytest.approx(model.intercept_[0], rel=1e-4)


def test_platt_stays_finite_where_scores_separate_or_do_not_vary():
    y = np.arange(20) >= 10
    p = calibration.platt(y, np.arange(20.0))
    assert np.isfinite(p).all() and 0.9 < p(19) < 1
    flat = calibration.platt(y, np.ones(20))
    assert flat(1.0) == pytest.approx(0.5)


def test_reliability_by_hand():
    y = np.array([0, 1, 1, 1, 0], bool)
    p = np.array([0.1, 0.15, 0.95, 1.0, 0.9])
    r = calibration.reliability(y, p)
    np.testing.assert_array_equal(r.count, [0, 2, 0, 0, 0, 0, 0, 0, 0, 3])
    np.testing.assert_allclose(r.predicted, [0.125, 0.95])
    np.testing.assert_allclose(r.observed, [1 / 2, 2 / 3])
    assert (r.low < r.observed).all() and (r.observed < r.high).all() and (r.low > 0).all()
    assert r.brier == pytest.approx(brier_score_loss(y, p))
    assert r.brier_prevalence == pytest.approx(0.6 * 0.4)


def test_wilson_interval_is_the_known_one():
    # 0 of 10: (0, 0.2775), Newcombe 1998
    r = calibration.reliability(np.zeros(10, bool), np.full(10, 0.05))
    assert r.low[0] == pytest.approx(0, abs=1e-12) and r.high[0] == pytest.approx(0.2775, abs=1e-4)


def test_confusion_counts_records_of_one_label():
    rng = np.random.default_rng(4)
    y, score = rng.random((300, 4)) < 0.3, rng.standard_normal((300, 4))
    single = y.sum(axis=1) == 1
    expected = confusion_matrix(y[single].argmax(1), score[single].argmax(1), labels=range(4))
    np.testing.assert_array_equal(curves.confusion(y, score), expected)
    score[:, 2] = np.nan
    count = curves.confusion(y, score)
    assert count[:, 2].sum() == 0 and count.sum() == single.sum()
    assert curves.confusion(np.zeros((5, 3)), np.zeros((5, 3))).sum() == 0


def test_gather_averages_seeds_and_keeps_the_rest_apart():
    common = dict(dataset="d", task="t", split="test", protocol="zero_shot", encoder="trained")
    row = {**common, "label": "macro", "metric": "auroc", "n": 9, "chance": 0.5}
    table = [
        {**row, "seed": 0, "value": 0.8, "ci_low": 0.7, "ci_high": 0.9},
        {**row, "seed": 1, "value": 0.6, "ci_low": 0.5, "ci_high": 0.7},
        {**row, "seed": 0, "rule": "paper", "value": None, "ci_low": None, "ci_high": None},
    ]
    corrected, paper = gather.gather(table).items()
    assert corrected[0].rule == "corrected" and paper[0].rule == "paper"
    figure = corrected[1]
    assert (figure.value, figure.low, figure.high) == pytest.approx((0.7, 0.6, 0.8))
    assert figure.sd == pytest.approx(0.02**0.5) and figure.seeds == 2
    assert np.isnan(paper[1].value) and gather.number(paper[1].value) == "\N{EN DASH}"


def test_markup_is_escaped_once():
    assert element("p", "<b>&", title='"x"') == '<p title="&quot;x&quot;">&lt;b&gt;&amp;</p>'
    assert element("p", element("b", "<")) == "<p><b>&lt;</b></p>"
    assert join(["<", escape("<")], ",") == "&lt;,&lt;"
    assert element("details", open=True, class_=None) == "<details open></details>"


def test_numbers_are_short():
    assert [number(v) for v in (0.04, -0.04, 0.51, -0.5, 12.0, 1234.56)] == [
        "0", "0", ".5", "-.5", "12", "1234.6",
    ]  # fmt: skip


def test_path_keeps_corners_and_drops_what_lies_between():
    x, y = np.array([0, 1, 2, 3, 3, 3.0]), np.array([0, 0, 0, 1, 1, 2.0])
    assert path(x, y) == "M0 0l2 0 1 1 0 1"
    back = path(np.array([0, 2.0, 1.0]), np.zeros(3))  # a turn on one line is a corner
    assert back == "M0 0l2 0-1 0"


@pytest.mark.parametrize("noise", [0.5, 3.0])
def test_a_thinned_curve_looks_the_same(noise):
    rng = np.random.default_rng(0)
    y = rng.random(2158) < 0.4
    score = y + noise * rng.standard_normal(2158)
    panel = chart.Panel(40, 8, 118, 118)
    for x, height in (curves.roc(y, score), chart.staircase(*curves.precision_recall(y, score))):
        points = np.stack([panel.at_x(x), panel.at_y(height)], axis=1)
        thin = chart.thinned(points)
        assert len(thin) <= chart.POINTS < len(points)
        np.testing.assert_array_equal(thin[[0, -1]], points[[0, -1]])
        place = {tuple(point): i for i, point in enumerate(points)}
        for start, end in itertools.pairwise(thin):
            left_out = points[place[tuple(start)] : place[tuple(end)]] - start
            along = (end - start) / np.hypot(*(end - start))
            assert np.abs(left_out @ [along[1], -along[0]]).max() < 0.5  # less than a line's width
    np.testing.assert_array_equal(chart.thinned(points[:1]), points[:1])
    np.testing.assert_array_equal(chart.thinned(np.eye(3)[:, :2]), np.eye(3)[:, :2])


def test_ticks_are_round_and_inside():
    for low, high in ((0, 1), (-0.3, 0.7), (2.63, 5.01), (0, 34567), (0.0699, 0.0701)):
        ticks = chart.ticks(low, high)
        assert 2 <= len(ticks) <= 6
        assert low - 1e-9 <= min(ticks) and max(ticks) <= high + 1e-9


def test_marks_of_64_classes_differ():
    assert len({(chart.colour(k), chart.mark_shape(k)) for k in range(64)}) == 64


def test_map_separates_groups_and_is_deterministic():
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(4), 40)
    x = 8 * rng.standard_normal((4, 30))[group] + rng.standard_normal((160, 30))
    xy = projection.tsne(x)
    assert xy.shape == (160, 2) and np.isfinite(xy).all()
    np.testing.assert_array_equal(xy, projection.tsne(x))
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=2) + 1e9 * np.eye(160)
    assert (group[distance.argmin(axis=1)] == group).mean() == 1


def test_pca_is_the_projection_of_largest_variance():
    rng = np.random.default_rng(6)
    x = rng.standard_normal((50, 5)) * [1, 5, 1, 3, 1]
    xy = projection.pca(x)
    values = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    np.testing.assert_allclose(xy.var(axis=0, ddof=1), values[:2])
    assert projection.pca(np.ones((3, 1))).shape == (3, 2)
    with pytest.raises(UserError, match="at least 2 records"):
        projection.pca(np.full((3, 4), np.nan))
    with pytest.raises(UserError, match="at most 2000"):
        projection.tsne(np.zeros((2001, 2)))
