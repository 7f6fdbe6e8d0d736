"""The running mean of the weights that evaluation takes, and what weight decay is for."""

import agreement
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecg_jax.methods import build
from ecg_jax.run.experiment import blank
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


@pytest.mark.parametrize("name", [*agreement.METHODS, *agreement.VARIANTS])
def test_only_kernels_and_matrices_are_decayed(name):
    """By what they are for, not by their shape: the biases of attention are [heads, dim]."""
    config = agreement.tiny(name, "")
    view = blank(round(config.seconds * config.rate), 24 if "text" in config else 0)
    params, _ = jax.eval_shape(build(config).init, jax.random.key(0), view)
    decayed = jax.tree_util.tree_leaves_with_path(optim.matrices(params))
    names = {True: set(), False: set()}
    for path, yes in decayed:
        names[yes].add(jax.tree_util.keystr(path[-1:], simple=True))
    assert names[True] <= {"kernel", "heads", "prototypes", "codebook"} and "kernel" in names[True]
    assert names[False] <= {"bias", "scale", "token", "log_scale"} and "bias" in names[False]
