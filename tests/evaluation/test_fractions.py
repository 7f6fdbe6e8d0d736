import itertools

import numpy as np
import pytest

from ecg_jax.errors import UserError
from ecg_jax.evaluation import fractions

FRACTIONS = (0.01, 0.05, 0.1, 1.0)


def split(seed=0, patients=400, prevalence=(0.5, 0.2, 0.05, 0.01, 0.0)):
    """1-3 records for every patient, who has the same labels in most of them."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    ill = rng.random((patients, len(prevalence))) < prevalence
    y = ill[patient] & (rng.random((len(patient), len(prevalence))) < 0.9)
    return y, np.char.mod("p%d", patient)


def test_patients_are_whole():
    y, patient = split()
    for fraction in FRACTIONS:
        subset = fractions.draw(y, patient, fraction)
        inside = np.isin(np.arange(len(y)), subset.rows)
        assert not set(patient[inside]) & set(patient[~inside])
        assert subset.patients == len(set(patient[inside]))
        assert subset.fraction == subset.patients / 400
        assert (np.diff(subset.rows) > 0).all()


def test_small_fractions_lie_within_larger_ones():
    y, patient = split()
    subsets = [set(fractions.draw(y, patient, f, seed=3).rows) for f in FRACTIONS]
    assert all(a < b for a, b in itertools.pairwise(subsets))
    assert subsets[-1] == set(range(len(y)))


def test_sizes_are_those_asked_for():
    y, patient = split()
    for fraction, patients in ((0.01, 4), (0.05, 20), (0.1, 40), (0.5, 200), (1.0, 400)):
        subset = fractions.draw(y, patient, fraction)
        assert subset.patients == patients
        assert subset.note == f"{len(subset.rows):,} training records of {patients} patients"


@pytest.mark.parametrize("seed", range(20))
def test_every_class_is_there(seed):
    y, patient = split(seed)
    subset = fractions.draw(y, patient, 0.01, seed)
    np.testing.assert_array_equal(y[subset.rows].any(axis=0), y.any(axis=0))
    assert subset.patients == 4


def test_more_patients_than_asked_for_are_said():
    patient = np.arange(100).astype(str)
    y = np.eye(100, 10, dtype=bool)  # ten classes with one patient each
    subset = fractions.draw(y, patient, 0.05)
    assert subset.patients == 10
    assert set(subset.rows) == set(range(10))
    assert subset.fraction == 0.1
    assert subset.note == (
        "10 training records of 10 patients: 5 % of the patients, 5, do not hold every class"
    )
    assert "do not hold" not in fractions.draw(y, patient, 0.1).note


def test_a_patient_with_several_classes_counts_for_all_of_them():
    y = np.zeros((50, 3), bool)
    y[7] = True
    subset = fractions.draw(y, np.arange(50).astype(str), 0.02)
    np.testing.assert_array_equal(subset.rows, [7])


def test_the_draw_does_not_depend_on_the_order_of_records():
    y, patient = split()
    order = np.random.default_rng(1).permutation(len(y))
    for fraction in (0.01, 0.1):
        rows = fractions.draw(y, patient, fraction).rows
        shuffled = fractions.draw(y[order], patient[order], fraction).rows
        np.testing.assert_array_equal(np.sort(order[shuffled]), rows)
    assert set(fractions.draw(y, patient, 0.1, seed=1).rows) != set(rows)


def test_after_the_first_patients_the_draw_is_fair():
    """Each of 50 patients is in half of the draws, the only ones with a class in all."""
    y = np.zeros((50, 2), bool)
    y[3, 0] = y[4, 1] = True
    patient = np.arange(50).astype(str)
    times = np.zeros(50)
    for seed in range(2000):
        times[fractions.draw(y, patient, 0.5, seed).rows] += 1
    assert (times[[3, 4]] == 2000).all()
    others = np.delete(times, [3, 4])
    np.testing.assert_allclose(others / 2000, 23 / 48, atol=0.05)  # 4.5 standard errors


def test_labels_of_all_negatives_are_no_obstacle():
    y = np.zeros((30, 2), bool)
    assert fractions.draw(y, np.arange(30).astype(str), 0.001).patients == 1


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan"), float("inf")])
def test_other_fractions_are_refused(fraction):
    with pytest.raises(UserError, match="above 0 and at most 1"):
        fractions.draw(*split(), fraction)


def test_wrong_input_is_refused():
    y, patient = split()
    with pytest.raises(UserError, match="do not fit"):
        fractions.draw(y, patient[1:], 0.1)
    with pytest.raises(UserError, match="do not fit"):
        fractions.draw(y[:0], patient[:0], 0.1)
    with pytest.raises(UserError, match="true or false"):
        fractions.draw(y * 2, patient, 0.1)
    patient[5] = ""
    with pytest.raises(UserError, match="every record needs its patient_id"):
        fractions.draw(y, patient, 0.1)
    with pytest.raises(UserError, match="every record needs its patient_id"):
        fractions.draw(y, np.arange(len(y)), 0.1)
