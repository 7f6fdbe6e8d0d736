import numpy as np
import pytest
from scipy.stats import norm

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures import bootstrap, metrics


def test_a_patients_records_stay_together():
    patient = np.array(["b", "a", "b", "c", "a", "b"])
    weight = bootstrap.draws(patient, n=400, seed=1)
    assert weight.dtype == np.uint16
    assert weight.shape == (400, 6)
    for name in "abc":
        own = weight[:, patient == name]
        assert (own == own[:, :1]).all()
    np.testing.assert_array_equal(weight[:, [0, 1, 3]].sum(axis=1), 3)
    assert len(np.unique(weight[:, [0, 1, 3]], axis=0)) == 10  # every multiset of 3 patients


def test_patients_are_drawn_as_often_as_each_other():
    weight = bootstrap.draws([str(i) for i in range(50)], n=4000)
    np.testing.assert_allclose(weight.mean(axis=0), 1, atol=0.08)
    np.testing.assert_allclose(weight.var(axis=0), 0.98, atol=0.12)  # multinomial: 1 - 1/50


def test_draws_depend_on_the_patients_and_the_seed_only():
    patient = np.array([f"p{i // 2}" for i in range(20)])
    shuffled = np.random.default_rng(0).permutation(20)
    np.testing.assert_array_equal(
        bootstrap.draws(patient, 9)[:, shuffled], bootstrap.draws(patient[shuffled], 9)
    )
    assert (bootstrap.draws(patient, 9, seed=1) != bootstrap.draws(patient, 9)).any()


def test_draws_refuse_nameless_patients_and_wrong_types():
    with pytest.raises(UserError, match="1 records have no patient_id"):
        bootstrap.draws(["a", ""])
    with pytest.raises(UserError, match="string"):
        bootstrap.draws(np.arange(3))
    with pytest.raises(UserError, match="at least one draw"):
        bootstrap.draws(["a"], n=0)
    assert bootstrap.draws(np.zeros(0, "U1"), n=3).shape == (3, 0)


def test_interval_of_one_class_is_student_on_the_logit_scale():
    rng = np.random.default_rng(0)
    drawn = rng.normal(0.8, 0.05, (5000, 1))
    drawn[:1000] = np.nan
    low, high = bootstrap.interval(0.8, drawn, np.array([11]))
    # t of 10 degrees of freedom 2.2281, variance of a mean of 11 corrected by 11/10
    reach = 2.2281 * np.nanstd(drawn) * np.sqrt(1.1) / 0.16
    expected = 1 / (1 + np.exp(-np.log(4) + np.array([reach, -reach])))
    np.testing.assert_allclose((low, high), expected, rtol=1e-4)


def test_interval_of_many_patients_nears_the_percentiles():
    patient = [str(i) for i in range(2000)]
    y = np.random.default_rng(0).random((2000, 1)) < 0.5
    score = np.random.default_rng(1).normal(size=(2000, 1)) + y
    drawn = metrics.auroc(y, score, bootstrap.draws(patient, 2000))
    ends = bootstrap.interval(metrics.auroc(y, score)[0], drawn, np.array([y.sum()]))
    np.testing.assert_allclose(ends, np.percentile(drawn, [2.5, 97.5]), atol=1.5e-3)


def test_no_interval_where_the_draws_do_not_say():
    drawn = np.random.default_rng(0).uniform(0.7, 0.9, (50, 2))
    silent = [
        (0.8, drawn, [1, 1]),
        (1.0, drawn, [9, 9]),
        (np.nan, drawn * np.nan, [9, 9]),
        (0.8, np.full((50, 2), 0.8), [9, 9]),
    ]
    for value, values, patients in silent:
        assert np.isnan(bootstrap.interval(value, values, np.array(patients))).all()
    assert not np.isnan(bootstrap.interval(0.8, drawn, np.array([1, 9]))).any()


def coverage(simulations, figure="auroc", by_record=False, patients=150, gap=1.5):
    """How often intervals hold the true figure: a common, a rarer and a rare class, their macro.

    Patients have 1-3 records that share 70 % of the scores' variance; the rarest class has 12
    patients on average. With normal scores `gap` apart the true AUROC is Phi(gap / sqrt 2), and
    half way between them both sensitivity and specificity are Phi(gap / 2).
    """
    rng = np.random.default_rng(0)
    prevalence, right = np.array([0.4, 0.2, 0.08]), norm.cdf(gap / 2)
    positive = prevalence * right + (1 - prevalence) * (1 - right)
    truth = {
        "auroc": np.full(3, norm.cdf(gap / np.sqrt(2))),
        "f1": 2 * prevalence * right / (prevalence + positive),
        "accuracy": np.full(3, right),
        "auprc": average_precision(prevalence, gap),
    }[figure]
    held = np.zeros(4)
    for seed in range(simulations):
        patient = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
        ill = rng.random((patients, 3)) < prevalence
        shared = rng.normal(scale=0.7**0.5, size=(patients, 3))[patient]
        score = shared + rng.normal(scale=0.3**0.5, size=shared.shape) + gap * ill[patient]
        y = ill[patient]
        unit, kind = (np.arange(len(y)), y) if by_record else (patient, ill)
        rests_on = {
            "auroc": np.minimum(kind.sum(axis=0), (~kind).sum(axis=0)),
            "f1": np.full(3, len(kind)),
            "accuracy": np.full(3, len(kind)),
        }
        rests_on = rests_on.get(figure, rests_on["auroc"])
        judged = score if figure in ("auroc", "auprc") else score >= gap / 2
        metric, draws = getattr(metrics, figure), bootstrap.draws(unit.astype(str), 200, seed)
        values, drawn = metric(y, judged), metric(y, judged, draws)
        for i, columns in enumerate([[0], [1], [2], [0, 1, 2]]):
            value = metrics.macro(values[columns])
            low, high = bootstrap.interval(value, drawn[:, columns], rests_on[columns])
            held[i] += low <= truth[columns].mean() <= high
    return held / simulations


def average_precision(prevalence, gap):
    """Of normal scores `gap` apart: the mean of the precision at the positives' scores."""
    share = (np.arange(10_000) + 0.5) / 10_000  # of the positives above
    false = norm.sf(norm.isf(share) + gap)  # of the negatives
    hits = prevalence[:, None] * share
    return np.mean(hits / (hits + (1 - prevalence[:, None]) * false), axis=1)


@pytest.mark.parametrize("figure", ["auroc", "f1", "accuracy"])
def test_intervals_hold_the_truth_as_often_as_they_say(figure):
    held = coverage(1000, figure)  # standard error 0.7 %
    assert (held > 0.93).all(), held
    assert (held < 0.97).all(), held


def test_intervals_of_auprc_are_rather_too_wide():
    """Those of the class with 12 patients; with the degrees of freedom of all patients they would
    be too narrow for a class with three, and so would be macro intervals."""
    held = coverage(1000, "auprc", gap=2.0)
    assert (held > 0.93).all(), held
    assert (held[[0, 1, 3]] < 0.97).all(), held
    assert held[2] < 0.995, held


def test_a_bootstrap_of_records_would_be_too_sure():
    assert (coverage(200, by_record=True) < 0.92).all()
