"""The losses against float64 oracles written from the papers' equations."""

import gradient_check
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from ecg_jax.losses.contrastive import symmetric_info_nce
from ecg_jax.runtime import parallel

K, D, TAU = 16, 6, 0.07


@pytest.fixture
def pairs():
    rng = np.random.default_rng(0)
    both = rng.standard_normal((2, K, D))
    return both / np.linalg.norm(both, axis=-1, keepdims=True)


def oracle(e, t, group=None):
    """ETP equations 3-5, record by record."""
    same = np.eye(K) if group is None else (group[:, None] == group[None]).astype(float)
    target = same / same.sum(axis=1, keepdims=True)
    total = 0.0
    for i in range(K):
        total -= target[i] @ log_softmax(t @ e[i] / TAU)
        total -= target[i] @ log_softmax(e @ t[i] / TAU)
    return total / (2 * K)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("devices", [1, 8])
def test_value_and_gradient(pairs, grouped, devices):
    group = np.arange(K) // 3 if grouped else None
    sharding = parallel.by_record(parallel.make_mesh(jax.devices()[:devices]))
    ids = None if group is None else parallel.put(group, sharding)
    gradient_check.check(
        lambda e, t: symmetric_info_nce(e, t, TAU, ids),
        lambda e, t: oracle(e, t, group),
        pairs,
        devices=devices,
    )


def test_groups_of_one_are_the_papers_loss(pairs):
    e, t = map(jnp.asarray, pairs)
    plain = symmetric_info_nce(e, t, TAU)
    np.testing.assert_allclose(symmetric_info_nce(e, t, TAU, jnp.arange(K)), plain, rtol=1e-6)


def test_perfect_pairs_beat_shuffled_ones(pairs):
    e = jnp.asarray(pairs[0])
    assert symmetric_info_nce(e, e, TAU) < symmetric_info_nce(e, jnp.roll(e, 1, axis=0), TAU)
