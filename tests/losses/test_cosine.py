"""The prediction of one view by the other, against SimSiam's equations 1 and 4."""

import jax.numpy as jnp
import numpy as np
import pytest
from gradient_check import check, unit

from ecg_jax.losses.cosine import swapped_cosine
from ecg_jax.models.heads import normalize

K, D = 8, 5


def negative_cosine(p, z):
    """Equation 1."""
    return -(p / np.linalg.norm(p)) @ (z / np.linalg.norm(z))


def oracle(p, z):
    """Equation 4, record by record."""
    return np.mean(
        [
            negative_cosine(p[i, 0], z[i, 1]) / 2 + negative_cosine(p[i, 1], z[i, 0]) / 2
            for i in range(K)
        ]
    )


@pytest.mark.parametrize("devices", [1, 8])
def test_value_and_gradients(devices):
    rng = np.random.default_rng(0)
    p, z = 3 * unit(rng, K, 2, D), unit(rng, K, 2, D)
    check(lambda p, z: -swapped_cosine(normalize(p), z), oracle, [p], [z], devices=devices)


def test_views_are_swapped():
    """Predictions that equal the projection of their own view, which is opposite to the other."""
    z = np.stack([np.eye(4), -np.eye(4)], axis=1)
    assert swapped_cosine(jnp.asarray(z), jnp.asarray(z)) == -1
