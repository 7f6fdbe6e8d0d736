"""SimCLR's loss against equation 1 and algorithm 1 of the paper, view by view."""

import jax.numpy as jnp
import numpy as np
import pytest
from gradient_check import check, unit

from ecg_jax.losses.contrastive import nt_xent

K, D, TAU = 8, 5, 0.1


def oracle(a, b):
    z = np.stack([a, b], axis=1).reshape(-1, a.shape[1])  # z_2k-1, z_2k are views of record k
    total = 0.0
    for i in range(len(z)):
        j = i ^ 1
        others = [np.exp(z[i] @ z[k] / TAU) for k in range(len(z)) if k != i]
        total -= np.log(np.exp(z[i] @ z[j] / TAU) / sum(others))
    return total / len(z)


@pytest.mark.parametrize("devices", [1, 8])
def test_value_and_gradients(devices):
    rng = np.random.default_rng(0)
    views = unit(rng, K, D), unit(rng, K, D)
    check(lambda a, b: nt_xent(a, b, TAU), oracle, views, devices=devices)


def test_a_view_is_no_negative_of_itself():
    """Two records whose views agree, at right angles: exp(1 / tau) against itself and two ones."""
    e = jnp.eye(2)
    np.testing.assert_allclose(nt_xent(e, e, 1.0), np.log1p(2 / np.e), rtol=1e-6)
