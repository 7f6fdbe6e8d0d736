"""The running mean of the weights that evaluation takes."""

import jax.numpy as jnp
import numpy as np

from ecg_jax.training import optim


def test_running_mean():
    mean = {"w": jnp.float32(0), "count": jnp.int32(0)}
    expected = 0.0
    for step in range(40):
        new = {"w": jnp.float32(step), "count": jnp.int32(step)}
        mean = optim.running_mean(0.5, jnp.int32(step), mean, new)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    np.testing.assert_allclose(mean["w"], expected, rtol=1e-6)
    assert mean["count"] == 39
    assert mean["count"].dtype == jnp.int32


def test_no_running_mean():
    assert optim.running_mean(0.0, jnp.int32(0), None, {"w": jnp.float32(1)}) is None
