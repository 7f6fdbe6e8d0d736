"""Paired permutation tests against a plain loop, and Holm's correction by hand."""

import numpy as np
import pytest
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures import paired


def sample(quality, n=120, seed=0):
    """Labels [n, 2], and scores that follow them as well as `quality` says."""
    rng = np.random.default_rng(seed)
    y = rng.random((n, 2)) < (0.4, 0.2)
    return y, (y * quality + rng.normal(size=(n, 2))).astype(np.float32)


def test_the_same_as_a_plain_loop():
    y, a = sample(2.0)
    b = np.round(a + np.random.default_rng(1).normal(size=a.shape), 1)  # ties
    patient = (np.arange(len(y)) // 2).astype(str)
    found = paired.compare(y, a, b, patient, permutations=50)
    ranks = [np.stack([rankdata(column) for column in score.T], axis=1) for score in (a, b)]
    _, index = np.unique(patient, return_inverse=True)
    exchanged = np.random.default_rng(0).integers(2, size=(60, 50), dtype=np.int16)
    exchanged[:, 0] = 0
    differences = []
    for swap in exchanged[index].T[..., None].astype(bool):
        own, other = np.where(swap, *ranks[::-1]), np.where(swap, *ranks)
        differences.append(roc_auc_score(y, own) - roc_auc_score(y, other))
    assert found.value == pytest.approx(differences[0])
    as_large = np.abs(differences[1:]) >= abs(differences[0]) - 1e-12
    assert found.p == pytest.approx((1 + as_large.sum()) / 50)
    assert found.classes == 2


def test_a_better_encoder_and_one_as_good():
    y, good = sample(3.0)
    weak, patient = sample(0.3)[1], np.arange(len(y)).astype(str)
    assert paired.compare(y, good, weak, patient).p < 0.01
    # The scale of the scores does not matter.
    same = paired.compare(y, good, 100 * good - 7, patient)
    assert (same.value, same.p) == (0, 1)
    back = paired.compare(y, weak, good, patient)
    assert back.value < 0 and back.p < 0.01


def test_what_cannot_be_compared():
    y, a = sample(1.0)
    patient = np.arange(len(y)).astype(str)
    unscored = np.where([True, False], a, np.nan)
    assert paired.compare(y, a, unscored, patient).classes == 1
    nothing = paired.compare(np.zeros_like(y), a, a, patient)
    assert np.isnan(nothing.p) and nothing.classes == 0
    with pytest.raises(UserError, match="do not fit"):
        paired.compare(y, a, a[:-1], patient)


def test_holm():
    np.testing.assert_allclose(paired.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(paired.holm([0.5, np.nan, 0.9]), [1.0, np.nan, 1.0])
    assert len(paired.holm([])) == 0
