"""Figures of collapse against NumPy, and planted collapses."""

import jax.numpy as jnp
import numpy as np
import pytest
from gradient_check import unit

from ecg_jax.methods.shared import health

K, D = 12, 5


def test_of_pairs():
    rng = np.random.default_rng(0)
    a, b = unit(rng, K, D), unit(rng, K, D)
    pairs = [(i, j) for i in range(K) for j in range(K) if i != j]
    expected = {
        "positive_cosine": np.mean([a[i] @ b[i] for i in range(K)]),
        "negative_cosine": np.mean([a[i] @ b[j] for i, j in pairs]),
        "alignment": np.mean([np.sum((a[i] - b[i]) ** 2) for i in range(K)]),
        "uniformity": np.log(np.mean([np.exp(-2 * np.sum((a[i] - a[j]) ** 2)) for i, j in pairs])),
        "embedding_std": np.sqrt(D) * np.mean([np.std(a[:, d]) for d in range(D)]),
    }
    found = health.of_pairs(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def test_directions_spread_evenly_have_a_deviation_of_one():
    a = jnp.asarray(unit(np.random.default_rng(0), 4096, 32), jnp.float32)
    assert health.of_pairs(a, a)["embedding_std"] == pytest.approx(1, abs=0.01)


def test_a_collapse_to_a_point():
    a = jnp.tile(jnp.eye(D)[:1], (K, 1))
    found = health.of_pairs(a, a)
    assert found["embedding_std"] == 0
    assert found["uniformity"] == 0
    assert found["negative_cosine"] == 1


def test_effective_rank():
    """Centred rows with the singular values 3, 2 and 1."""
    rng = np.random.default_rng(0)
    left, _ = np.linalg.qr(rng.standard_normal((K, 3)) - rng.standard_normal(3))
    left, _ = np.linalg.qr(left - left.mean(axis=0))
    right, _ = np.linalg.qr(rng.standard_normal((D, D)))
    x = left @ np.diag([3.0, 2.0, 1.0]) @ right[:3] + rng.standard_normal(D)
    share = np.array([3, 2, 1]) / 6
    expected = np.exp(-np.sum(share * np.log(share)))
    assert health.effective_rank(x) == pytest.approx(expected, rel=1e-6)


def test_rows_spread_evenly_have_the_rank_of_their_dimensions():
    x = unit(np.random.default_rng(0), 4096, 32)
    assert 31 < health.effective_rank(x) <= 32


@pytest.mark.parametrize("dimensions", [0, 1, 2, 4])
def test_a_planted_collapse_is_below_the_least_rank(dimensions):
    """To a point, a line, a plane or four dimensions, up to float32's rounding."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(32) + rng.standard_normal((300, dimensions)) @ rng.standard_normal(
        (dimensions, 32)
    )
    assert health.effective_rank(x.astype(np.float32)) < health.LEAST_RANK
    assert dimensions or health.effective_rank(x) == 0
