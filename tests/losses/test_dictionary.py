"""MoCo's losses against float64 oracles written from the papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_check import check, unit

from ecg_jax.losses.dictionary import queue_info_nce, swapped_info_nce

K, D, Q, TAU = 8, 5, 24, 0.2
FILLED = np.arange(Q) % 3 > 0


def look_up(q, keys, positive):
    """-log exp(q . k+ / tau) / sum_k exp(q . k / tau) over the rows of keys."""
    each = np.exp(keys @ q / TAU)
    return -np.log(each[positive] / each.sum())


def with_queue(q, k, queue):
    """He et al. 2020, equation 1."""
    return np.mean([look_up(q[i], np.vstack([k[i], queue[FILLED]]), 0) for i in range(K)])


def symmetric(q, k):
    """Chen et al. 2021, algorithm 1: ctr(q1, k2) + ctr(q2, k1), ctr scaled by 2 tau."""
    total = 0.0
    for one, two in ((0, 1), (1, 0)):
        total += 2 * TAU * np.mean([look_up(q[i, one], k[:, two], i) for i in range(K)])
    return total


@pytest.mark.parametrize("devices", [1, 8])
def test_queue(devices):
    rng = np.random.default_rng(0)
    q, k, queue = unit(rng, K, D), unit(rng, K, D), unit(rng, Q, D)

    def loss(q, k, queue):
        return queue_info_nce(q, k, queue, jnp.asarray(FILLED), TAU)

    check(loss, with_queue, [q], [k, queue], devices=devices)


@pytest.mark.parametrize("devices", [1, 8])
def test_in_batch(devices):
    rng = np.random.default_rng(0)
    q, k = unit(rng, K, 2, D), unit(rng, K, 2, D)
    check(lambda q, k: swapped_info_nce(q, k, TAU), symmetric, [q], [k], devices=devices)


def test_an_empty_queue_teaches_nothing():
    q = jnp.asarray(unit(np.random.default_rng(0), K, D), jnp.float32)
    empty = jnp.zeros((Q, D)), jnp.zeros(Q, bool)
    value, gradient = jax.value_and_grad(lambda q: queue_info_nce(q, q, *empty, TAU))(q)
    assert value == 0
    assert not gradient.any()
