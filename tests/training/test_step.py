"""An update that is not finite leaves the state as it was, and no more than it must is touched."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from ecg_jax.methods import Method, Rows
from ecg_jax.runtime import parallel
from ecg_jax.training import feed
from ecg_jax.training.state import TrainState
from ecg_jax.training.step import make_dispatch

BANK = (64, 3)


def loss(params, state, x, key):
    bank = state["memory"]["bank"]
    value = jnp.sum((params["w"] * x - bank[2]) ** 2)
    return value, (
        {**state, "memory": {"bank": Rows(jnp.array([2, 5]), jnp.stack([x, 2 * x]))}},
        {},
    )


@pytest.fixture
def begun(monkeypatch):
    """A dispatch, and a state with a memory bank."""
    config = ConfigDict({"seed": 0, "average": 0, "parallel": {"shard_optimizer": False}})
    method = Method(None, loss, None, None, memory=lambda *_: {}, rows=("bank",))  # type: ignore[arg-type]
    optimizer = optax.with_extra_args_support(optax.sgd(0.1))
    params = {"w": jnp.ones(3)}
    state = TrainState(
        jnp.int32(0), params, {"memory": {"bank": jnp.ones(BANK)}}, optimizer.init(params)
    )
    state = jax.device_put(state, parallel.replicated(parallel.make_mesh(jax.devices()[:1])))
    monkeypatch.setattr(feed, "view", lambda config, data, step, steps: data)
    return make_dispatch(config, method, optimizer, 1), state


def test_rows_are_written_where_the_update_is_made_and_only_there(begun):
    dispatch, state = begun
    before = jax.device_get(state)
    state, _ = dispatch(state, jnp.array([1.0, jnp.nan, 1.0]), 1)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state), before)
    x = np.array([1.0, 2.0, 3.0], np.float32)
    state, _ = dispatch(state, jnp.asarray(x), 1)
    wanted = np.ones(BANK, np.float32)
    wanted[2], wanted[5] = x, 2 * x
    np.testing.assert_array_equal(state.method["memory"]["bank"], wanted)
    assert state.step == 1 and np.abs(state.params["w"] - 1).max() > 0


def test_the_bank_as_a_whole_is_not_chosen_from(begun):
    """Which would read and write all of it in every update, for one that hardly ever is undone."""
    dispatch, state = begun
    program = str(jax.make_jaxpr(lambda s, x: dispatch(s, x, 1))(state, jnp.ones(3)))
    chosen = [
        line for line in program.splitlines() if "select_n" in line or "jit[name=_where" in line
    ]
    assert chosen
    assert not [line for line in chosen if "f32[64,3]" in line.partition("=")[0]]
