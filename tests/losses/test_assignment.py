"""SwAV's codes and loss against float64 oracles written from the paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_check import check, unit

from ecg_jax.losses.assignment import sinkhorn, swapped_prediction
from ecg_jax.runtime import parallel

K, P, EPSILON, TAU = 16, 6, 0.05, 0.1


def oracle(scores, iterations):
    """Caron et al. 2020, equation 5: Q = Diag(u) exp(scores / epsilon) Diag(v), u and v from the
    Sinkhorn-Knopp algorithm for the marginals 1 / P and 1 / N of equation 4; times N."""
    N, P = scores.shape
    M = np.exp(scores.T / EPSILON)
    v = np.ones(N)
    for _ in range(iterations):
        u = 1 / P / (M @ v)
        v = 1 / N / (M.T @ u)
    return N * (u[:, None] * M * v).T


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    return unit(rng, K, 4) @ unit(rng, P, 4).T


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("iterations", [1, 3])
def test_codes(scores, iterations, devices):
    sharding = parallel.by_record(parallel.make_mesh(jax.devices()[:devices]))
    x = parallel.put(scores.astype(np.float32), sharding)
    found = jax.jit(lambda x: sinkhorn(x, EPSILON, iterations))(x)
    np.testing.assert_allclose(found, oracle(scores, iterations), rtol=2e-5, atol=1e-7)


def test_marginals(scores):
    """Equation 4: of a sample exactly, of a prototype in the limit."""
    x = jnp.asarray(scores)
    few, many = (sinkhorn(x, 0.3, n) for n in (3, 40))
    for codes in (few, many):
        np.testing.assert_allclose(codes.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(many.mean(axis=0), 1 / P, rtol=1e-4)
    plain = jax.nn.softmax(x / 0.3).mean(axis=0)
    assert np.abs(few.mean(axis=0) - 1 / P).max() < 0.2 * np.abs(plain - 1 / P).max()


def test_samples_that_do_not_count_leave_the_codes_of_the_others_alone(scores):
    extra = np.random.default_rng(1).uniform(-1, 1, (5, P))
    both = jnp.asarray(np.vstack([scores, extra]))
    counted = jnp.arange(K + 5) < K
    found = sinkhorn(both, EPSILON, counted=counted)
    np.testing.assert_allclose(found[:K], oracle(scores, 3), rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)


def test_a_small_epsilon_does_not_overflow():
    """exp(1 / epsilon) is no float32; both samples are nearest to the first prototype."""
    codes = sinkhorn(jnp.asarray([[1.0, 0.9], [0.9, 0.0]]), 1e-3)
    np.testing.assert_allclose(codes.sum(axis=1), 1, rtol=1e-5)
    assert codes.argmax(axis=1).tolist() == [1, 0]


def test_codes_have_no_gradient(scores):
    x = jnp.asarray(scores, jnp.float32)
    assert not jax.grad(lambda x: (sinkhorn(x, EPSILON) ** 2).sum())(x).any()


def swapped(scores, codes):
    """Equations 1 and 2."""
    total = 0.0
    for n in range(len(scores)):
        for t, s in ((0, 1), (1, 0)):
            p = np.exp(scores[n, t] / TAU)
            total -= codes[n, s] @ np.log(p / p.sum())
    return total / len(scores)


@pytest.mark.parametrize("devices", [1, 8])
def test_swapped_prediction(devices):
    rng = np.random.default_rng(0)
    scores, codes = rng.uniform(-1, 1, (8, 2, P)), rng.dirichlet(np.ones(P), (8, 2))
    check(lambda x, q: swapped_prediction(x, q, TAU), swapped, [scores], [codes], devices=devices)
