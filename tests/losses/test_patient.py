"""CLOCS's loss against a float64 oracle written from its equations 1-3."""

import gradient_check
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecg_jax.losses.contrastive import symmetric_info_nce
from ecg_jax.losses.patient import patient_contrast
from ecg_jax.runtime import parallel

K, D, TAU = 16, 6, 0.1
PATIENT = np.array([0, 1, 2, 0, 3, 4, 5, 0, 6, 7, 8, 9, 9, 10, 11, 12], np.int32)


@pytest.fixture
def pair():
    both = np.random.default_rng(0).standard_normal((2, K, D))
    return both / np.linalg.norm(both, axis=-1, keepdims=True)


def directed(a, b, patient):
    """Equations 2 and 3: (diagonal, off-diagonal or None)."""
    diagonal, off = [], []
    for i in range(K):
        e = np.exp(b @ a[i] / TAU)
        for j in range(K):
            if patient[i] == patient[j]:
                (diagonal if i == j else off).append(-np.log(e[j] / e.sum()))
    return np.mean(diagonal), np.mean(off) if off else None


def oracle(a, b, patient):
    """Equation 1, divided by the number of terms."""
    terms = [t for t in directed(a, b, patient) + directed(b, a, patient) if t is not None]
    return sum(terms) / len(terms)


@pytest.mark.parametrize("patient", [PATIENT, np.arange(K, dtype=np.int32)])
@pytest.mark.parametrize("devices", [1, 8])
def test_value_and_gradient(pair, patient, devices):
    sharding = parallel.by_record(parallel.make_mesh(jax.devices()[:devices]))
    group = parallel.put(patient, sharding)
    gradient_check.check(
        lambda a, b: patient_contrast(a, b, group, TAU),
        lambda a, b: oracle(a, b, patient),
        pair,
        devices=devices,
    )


def test_without_shared_patients_it_is_info_nce(pair):
    a, b = map(jnp.asarray, pair)
    plain = symmetric_info_nce(a, b, TAU)
    np.testing.assert_allclose(patient_contrast(a, b, jnp.arange(K), TAU), plain, rtol=1e-6)


def test_records_of_one_patient_attract_each_other(pair):
    a, b = map(jnp.asarray, pair)
    apart = jax.grad(patient_contrast, 1)(a, b, jnp.arange(K), TAU)
    joined = jax.grad(patient_contrast, 1)(a, b, jnp.asarray(PATIENT), TAU)
    # Down its gradient, the view of record 3 moves towards record 0: one patient, or two.
    assert -joined[3] @ a[0] > 0 > -apart[3] @ a[0]


def test_finite_where_a_softmax_underflows():
    """The public code's division of exponentials gave NaN."""
    a = jnp.eye(4)
    value, gradient = jax.value_and_grad(patient_contrast)(a, -a, jnp.array([0, 0, 1, 2]), 1e-3)
    # -log p is 1,000 + log 3 for a view and its partner, log 3 for two records.
    np.testing.assert_allclose(value, (1000 + 2 * np.log(3)) / 2, rtol=1e-5)
    assert jnp.isfinite(gradient).all()
