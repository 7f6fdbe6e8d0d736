"""PIRL's loss against a float64 oracle written from its equations 3 and 4."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import approx_fprime

from ecg_jax.losses.nce import log_one_minus_softmax, memory_nce
from ecg_jax.runtime import parallel

B, N, D, TAU = 8, 5, 4, 0.07


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    shapes = (B, D), (B, D), (B, N, D)
    x = [rng.standard_normal(shape) for shape in shapes]
    return [v / np.linalg.norm(v, axis=-1, keepdims=True) for v in x]


def oracle(query, positive, negatives):
    total = 0.0
    for q, m, others in zip(query, positive, negatives, strict=True):
        e = np.exp(np.array([q @ m, *(q @ o for o in others)]) / TAU)
        h = e / e.sum()  # equation 3
        total -= np.log(h[0]) + sum(np.log(1 - h[1:]))  # equation 4
    return total / B


@pytest.mark.parametrize("devices", [1, 8])
def test_value_and_gradient(vectors, devices):
    sharding = parallel.by_record(parallel.make_mesh(jax.devices()[:devices]))
    args = [parallel.put(v.astype(np.float32), sharding) for v in vectors]
    value, gradient = jax.jit(jax.value_and_grad(lambda q, *m: memory_nce(q, *m, TAU)))(*args)
    np.testing.assert_allclose(value, oracle(*vectors), rtol=1e-5)
    query, *bank = vectors
    numeric = approx_fprime(query.ravel(), lambda q: oracle(q.reshape(B, D), *bank), 1e-7)
    np.testing.assert_allclose(gradient, numeric.reshape(B, D), rtol=1e-4, atol=2e-5)


def test_finite_where_a_probability_rounds_to_one():
    logits = jnp.array([[0.0, 40.0, -5.0]])
    value = log_one_minus_softmax(logits)[0]
    np.testing.assert_allclose(value, [-np.exp(-40), np.log(1 + np.exp(-5)) - 40, 0], atol=1e-17)
    gradient = jax.grad(lambda x: log_one_minus_softmax(x).sum())(logits)
    assert jnp.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[0, 1], -1, rtol=1e-6)
