"""A small training state, as the checkpoints in `stored/` hold it.

    PYTHONPATH=. python tests/runtime/stored_state.py FOLDER

writes it with the version at hand; `stored/` keeps what earlier versions wrote.
"""

import sys
from pathlib import Path

import jax.numpy as jnp
import optax

from ecg_jax.runtime.checkpoint import Checkpoints
from ecg_jax.training.state import TrainState


def stored_state() -> TrainState:
    params = {
        "encoder": {"Conv_0": {"kernel": jnp.arange(6.0).reshape(3, 2)}},
        "projection": {"bias": jnp.float32([0.5, -0.5])},
    }
    method = {"batch_stats": {"mean": jnp.float32([1.0, 2.0])}, "memory": {"pointer": jnp.int32(4)}}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    average = (params, {"batch_stats": method["batch_stats"]})
    return TrainState(jnp.int32(7), params, method, optimizer.init(params), average)


if __name__ == "__main__":
    checkpoints = Checkpoints(Path(sys.argv[1]).absolute())
    checkpoints.save(7, stored_state(), {"best": 0.75})
    checkpoints.close()
