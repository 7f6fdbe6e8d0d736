"""BYOL: the prediction of a slow copy of the network, which follows and has no gradient."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ecg_jax import methods
from ecg_jax.errors import UserError
from ecg_jax.models.heads import MLP
from ecg_jax.models.siamese import Siamese, encoder

MOMENTUM, STEPS = 0.9, 40


@functools.cache
def begun():
    """method, params, state with a target apart from them, and the first step."""
    method: Any = methods.build(tiny.config("byol", momentum=MOMENTUM))
    params, state = tiny.start(method, STEPS)
    params = tiny.moved(params, 1)
    state["memory"]["target"] = tiny.moved(state["memory"]["target"], 2)
    return method, params, state, tiny.step(method)(params, state, tiny.view())


def test_the_target_begins_as_the_network():
    params, state = tiny.start(begun()[0])
    target = {"params": params, "batch_stats": state["batch_stats"]}
    jax.tree.map(np.testing.assert_array_equal, state["memory"]["target"], target)


def test_loss_is_equation_2_for_both_views():
    _, params, state, ((value, _), _) = begun()
    heads = MLP((12, tiny.D)), MLP((12, tiny.D))
    network = Siamese(encoder(tiny.config("byol")), *heads)
    x = tiny.two_views(tiny.view())
    variables = {"params": params, "batch_stats": state["batch_stats"]}
    q = tiny.unit(tiny.outputs(network, variables, x).prediction)
    z = tiny.unit(tiny.outputs(network, state["memory"]["target"], x).projection)
    each = [np.sum((q[:, i] - z[:, 1 - i]) ** 2, axis=-1) for i in (0, 1)]
    np.testing.assert_allclose(value, np.mean(each[0] + each[1]), rtol=1e-4)


def test_the_target_has_no_gradient():
    _, _, _, (_, (in_params, in_state)) = begun()
    assert tiny.largest(in_state["memory"]["target"]) == 0
    assert all(tiny.largest(in_params[part]) > 0 for part in ("encoder", "projector", "predictor"))


@pytest.mark.parametrize(
    ("step", "tau"), [(0, MOMENTUM), (STEPS // 2, 1 - (1 - MOMENTUM) / 2), (STEPS, 1)]
)
def test_every_leaf_of_the_target_follows_along_a_cosine(step, tau):
    method, params, _, ((_, (state, _)), _) = begun()
    state = {**state, "memory": {**state["memory"], "step": jnp.int32(step)}}
    new = jax.jit(method.after_update)(params, state)
    online = {"params": params, "batch_stats": state["batch_stats"]}
    tiny.check_average(new["memory"]["target"], state["memory"]["target"], online, tau)
    assert new["memory"]["step"] == step + 1


def test_statistics_are_the_network_s_and_the_loss_leaves_the_memory_alone():
    _, _, state, ((_, (new, _)), _) = begun()
    jax.tree.map(np.testing.assert_array_equal, new["memory"], state["memory"])
    moves = jax.tree.map(lambda a, b: a - b, new["batch_stats"], state["batch_stats"])
    assert all(jnp.abs(move).max() > 0 for move in jax.tree.leaves(moves))


@pytest.mark.parametrize("momentum", [-0.1, 1.0])
def test_bad_momentum(momentum):
    with pytest.raises(UserError, match=r"model.momentum=.*: must be in \[0, 1\)"):
        methods.build(tiny.config("byol", momentum=momentum))
