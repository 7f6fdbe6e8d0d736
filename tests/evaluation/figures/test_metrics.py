import numpy as np
import pytest
from sklearn import metrics as sk

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures import metrics


def sample(seed, n=200, k=6, levels=None):
    """Labels, scores (of few distinct values if `levels`) and integer weights, some zero."""
    rng = np.random.default_rng(seed)
    y = rng.random((n, k)) < rng.uniform(0.05, 0.9, k)
    score = rng.normal(size=(n, k)) + y
    if levels:
        score = np.round(score * levels) / levels
    return y, score, rng.integers(0, 4, (5, n)).astype(np.uint16)


@pytest.mark.parametrize("levels", [None, 3, 1, 0.2])
@pytest.mark.parametrize("n", [12, 200])
def test_areas_agree_with_scikit_learn(levels, n):
    y, score, weight = sample(0, n, levels=levels)
    plain, drawn = metrics.ranking(y, score), metrics.ranking(y, score, weight)
    for k in np.flatnonzero(y.any(axis=0) & ~y.all(axis=0)):
        for i, oracle in enumerate((sk.roc_auc_score, sk.average_precision_score)):
            assert abs(plain[i][k] - oracle(y[:, k], score[:, k])) < 1e-12
            for r, w in enumerate(weight):
                if w[y[:, k]].any() and w[~y[:, k]].any():
                    expected = oracle(y[:, k], score[:, k], sample_weight=w)
                    assert abs(drawn[i][r, k] - expected) < 1e-12


def test_areas_by_hand():
    y = np.array([[1], [0], [1], [0]], bool)
    score = np.array([[4.0], [3.0], [3.0], [1.0]])
    assert metrics.auroc(y, score) == (1 + 1 + 0.5 + 1) / 4
    assert metrics.auprc(y, score) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_weights_count_as_repeated_records():
    y, score, weight = sample(1)
    repeated = np.repeat(np.arange(len(y)), weight[0])
    for metric in (metrics.auroc, metrics.auprc):
        np.testing.assert_allclose(
            metric(y, score, weight[0]), metric(y[repeated], score[repeated]), atol=1e-12
        )
    for metric in (metrics.f1, metrics.accuracy, metrics.precision, metrics.recall):
        predicted = score > 0.5
        np.testing.assert_allclose(
            metric(y, predicted, weight[0]), metric(y[repeated], predicted[repeated]), atol=1e-12
        )


def test_blocks_of_draws_do_not_change_the_figures(monkeypatch):
    y, score, weight = sample(2, levels=3)
    whole = [metrics.ranking(y, score, weight), metrics.f1(y, score > 0, weight)]
    monkeypatch.setattr(metrics, "_BLOCK", 2 * len(y))
    parts = [metrics.ranking(y, score, weight), metrics.f1(y, score > 0, weight)]
    np.testing.assert_allclose(whole[0], parts[0], rtol=1e-13)
    np.testing.assert_allclose(whole[1], parts[1], rtol=1e-13)


def test_float_weights_agree_with_scikit_learn():
    y, score, _ = sample(3, levels=2)
    weight = np.random.default_rng(3).uniform(0, 2, len(y))
    for k in range(y.shape[1]):
        for ours, oracle in (
            (metrics.auroc, sk.roc_auc_score),
            (metrics.auprc, sk.average_precision_score),
        ):
            expected = oracle(y[:, k], score[:, k], sample_weight=weight)
            assert abs(ours(y, score, weight)[k] - expected) < 1e-12


@pytest.mark.parametrize("rule", ["best", "none", "all"])
def test_f1_and_accuracy_agree_with_scikit_learn(rule):
    y, score, weight = sample(4)
    y[:, 0] = False
    predicted = {"best": score > 0.5, "none": score > 99, "all": score > -99}[rule]
    f1, accuracy = metrics.f1(y, predicted, weight), metrics.accuracy(y, predicted, weight)
    for r, w in enumerate(weight):
        for k in range(y.shape[1]):
            expected = sk.f1_score(y[:, k], predicted[:, k], sample_weight=w, zero_division=np.nan)
            np.testing.assert_allclose(f1[r, k], expected, atol=1e-12)
            expected = sk.accuracy_score(y[:, k], predicted[:, k], sample_weight=w)
            np.testing.assert_allclose(accuracy[r, k], expected, atol=1e-12)
    np.testing.assert_allclose(metrics.f1(y, predicted), metrics.f1(y, predicted, np.ones(len(y))))


@pytest.mark.parametrize("rule", ["best", "none", "all"])
def test_precision_and_recall_agree_with_scikit_learn(rule):
    y, score, weight = sample(8)
    y[:, 0], y[:, 1] = False, True
    predicted = {"best": score > 0.5, "none": score > 99, "all": score > -99}[rule]
    for ours, oracle in (
        (metrics.precision, sk.precision_score),
        (metrics.recall, sk.recall_score),
    ):
        plain, drawn = ours(y, predicted), ours(y, predicted, weight)
        for k in range(y.shape[1]):
            expected = oracle(y[:, k], predicted[:, k], zero_division=np.nan)
            np.testing.assert_allclose(plain[k], expected, atol=1e-12)
            for r, w in enumerate(weight):
                expected = oracle(y[:, k], predicted[:, k], sample_weight=w, zero_division=np.nan)
                np.testing.assert_allclose(drawn[r, k], expected, atol=1e-12)


@pytest.mark.parametrize("seed", range(40))
def test_every_figure_agrees_with_scikit_learn(seed):
    """Random sizes and prevalences, ties from none to all, classes of one kind and empty."""
    rng = np.random.default_rng(seed)
    n, levels = rng.integers(2, 60), rng.choice([0.3, 1, 4, 1e9])
    y = rng.random((n, 7)) < rng.beta(0.4, 0.4, 7)
    y[:, 5], y[:, 6] = False, True
    score = np.round((rng.normal(size=y.shape) + y) * levels) / levels
    auroc, auprc = metrics.ranking(y, score)
    threshold = metrics.best_f1_threshold(y, score)
    predicted = score >= threshold
    for k in range(7):
        kinds = len(np.unique(y[:, k]))
        column = y[:, k], score[:, k]
        roc = sk.roc_auc_score(*column) if kinds == 2 else np.nan
        area = sk.average_precision_score(*column) if y[:, k].any() else np.nan
        np.testing.assert_allclose([auroc[k], auprc[k]], [roc, area], atol=1e-6)
        precision, recall, _ = sk.precision_recall_curve(*column) if y[:, k].any() else [None] * 3
        for ours, oracle in (
            (metrics.f1, sk.f1_score),
            (metrics.precision, sk.precision_score),
            (metrics.recall, sk.recall_score),
        ):
            expected = oracle(y[:, k], predicted[:, k], zero_division=np.nan)
            np.testing.assert_allclose(ours(y, predicted)[k], expected, atol=1e-6)
        accuracy = sk.accuracy_score(y[:, k], predicted[:, k])
        assert metrics.accuracy(y, predicted)[k] == pytest.approx(accuracy, abs=1e-6)
        if y[:, k].any():
            best = (2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()
            assert metrics.f1(y, predicted)[k] == pytest.approx(best, abs=1e-6)
        else:
            assert np.isnan(threshold[k])


def test_undefined_figures_are_nan():
    y = np.zeros((6, 3), bool)
    y[:, 1] = True
    y[:2, 2] = True
    score = np.arange(18.0).reshape(6, 3)
    auroc, auprc = metrics.ranking(y, score)
    np.testing.assert_array_equal(np.isnan(auroc), [True, True, False])
    np.testing.assert_array_equal(np.isnan(auprc), [True, False, False])
    assert auprc[1] == 1 == sk.average_precision_score(y[:, 1], score[:, 1])
    lost = np.array([[0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0] * 6])
    assert np.isnan(metrics.auroc(y, score, lost)[:, 2]).all()
    np.testing.assert_array_equal(np.isnan(metrics.auprc(y, score, lost)[:, 2]), [1, 0, 1])
    assert np.isnan(metrics.accuracy(y, y, lost)[2]).all()


def test_without_records_everything_is_nan():
    y, score = np.zeros((0, 3), bool), np.zeros((0, 3))
    predicted = (metrics.f1, metrics.accuracy, metrics.precision, metrics.recall)
    for figure in (*metrics.ranking(y, score), *(metric(y, y) for metric in predicted)):
        assert figure.shape == (3,)
        assert np.isnan(figure).all()
    assert metrics.auroc(y, score, np.zeros((4, 0))).shape == (4, 3)
    assert np.isnan(metrics.best_f1_threshold(y, score)).all()


@pytest.mark.parametrize("levels", [None, 3, 1])
def test_threshold_has_the_best_f1(levels):
    y, score, _ = sample(5, levels=levels)
    threshold = metrics.best_f1_threshold(y, score)
    best = metrics.f1(y, score >= threshold)
    for k in range(y.shape[1]):
        candidates = np.unique(score[:, k])
        f1s = [sk.f1_score(y[:, k], score[:, k] >= t) for t in candidates]
        assert best[k] == pytest.approx(max(f1s))
        highest = candidates[np.flatnonzero(np.array(f1s) > max(f1s) - 1e-12)[-1]]
        below = candidates[candidates < highest]
        middle = (highest + below[-1]) / 2 if len(below) else highest
        assert threshold[k] == pytest.approx(middle)


def test_threshold_of_degenerate_classes():
    y = np.array([[0, 1, 1, 0], [0, 1, 0, 1], [0, 1, 0, 0]], bool)
    score = np.array([[1.0, 3.0, 5.0, 7.0], [2.0, 2.0, 5.0, 7.0], [3.0, 1.0, 5.0, 7.0]])
    threshold = metrics.best_f1_threshold(y, score)
    assert np.isnan(threshold[0])
    np.testing.assert_array_equal(threshold[1:], [1.0, 5.0, 7.0])


def test_threshold_separates_neighbouring_floats():
    low = np.float64(0.3)
    high = np.nextafter(low, 1)
    threshold = metrics.best_f1_threshold([[True], [False]], [[high], [low]])
    assert low < threshold[0] <= high


def test_macro_is_over_the_defined_classes():
    values = np.array([[0.5, np.nan, 0.7], [np.nan] * 3])
    np.testing.assert_allclose(metrics.macro(values), [0.6, np.nan])
    assert np.isnan(metrics.macro(np.zeros(0)))


def test_a_class_without_score_has_no_figures():
    y, score, weight = sample(6)
    score[:, 2] = np.nan
    for figure in (*metrics.ranking(y, score, weight), metrics.best_f1_threshold(y, score)[None]):
        np.testing.assert_array_equal(np.isnan(figure).all(axis=0), np.arange(6) == 2)


def test_wrong_input_is_refused():
    y, score, weight = sample(7)
    for bad in (np.nan, np.inf):
        stray = score.copy()
        stray[3, 1] = bad
        with pytest.raises(UserError, match="record 3, class 1"):
            metrics.auroc(y, stray)
    with pytest.raises(UserError, match="do not fit the labels"):
        metrics.auroc(y, score[:, :3])
    with pytest.raises(UserError, match="do not fit the labels"):
        metrics.f1(y, y[:3])
    with pytest.raises(UserError, match="do not fit 200 records"):
        metrics.auroc(y, score, weight[:, :9])
    with pytest.raises(UserError, match="not negative"):
        metrics.auroc(y, score, -weight.astype(float))
    with pytest.raises(UserError, match="true or false"):
        metrics.auroc(y * 2, score)
    with pytest.raises(UserError, match="true or false"):
        metrics.f1(y, score)
