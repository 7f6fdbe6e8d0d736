"""SwAV: swapped prediction of codes, prototypes that wait, a queue that comes late."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from ecg_jax import methods
from ecg_jax.errors import UserError
from ecg_jax.models.heads import MLP
from ecg_jax.models.siamese import Siamese, encoder
from ecg_jax.training import optim

EPOCHS, STEPS, SLOTS, PROTOTYPES = 20, 40, 2, 6
FREEZE, START = STEPS // EPOCHS, 20  # updates


def config(**model):
    model = {"prototypes": PROTOTYPES, "queue": SLOTS * tiny.B, "queue_from": 0.5} | model
    return tiny.config("swav", **model)


@functools.cache
def begun():
    method = methods.build(config())
    params, state = tiny.start(method, STEPS)
    rng = np.random.default_rng(0)
    queue = tiny.unit(rng.standard_normal((tiny.B, SLOTS, 2, tiny.D)))
    state["memory"]["queue"] = jnp.asarray(queue, jnp.float32)
    return params, state, tiny.step(method)


def at(step):
    """(params, state, what `tiny.step` returns) in an update of this number."""
    params, state, run = begun()
    state = {**state, "memory": {**state["memory"], "step": jnp.int32(step)}}
    return params, state, run(params, state, tiny.view())


def embeddings(params, state):
    network = Siamese(encoder(config()), MLP((12, tiny.D)))
    variables = {"params": params, "batch_stats": state["batch_stats"]}
    return tiny.unit(tiny.outputs(network, variables, tiny.two_views(tiny.view())).projection)


def codes(scores):
    """Three rounds over N samples, each prototype and then each sample scaled to its marginal."""
    q = np.exp(scores / 0.05)
    for _ in range(3):
        q /= len(q[0]) * q.sum(axis=0)
        q /= len(q) * q.sum(axis=1, keepdims=True)
    return len(q) * q


@pytest.mark.parametrize("step", [FREEZE, START - 1, START])
def test_loss_is_equations_1_and_2_with_the_queue_once_it_is_due(step):
    params, state, ((value, _), _) = at(step)
    z, c = embeddings(params, state), tiny.unit(np.float64(params["prototypes"]))
    queue = np.float64(state["memory"]["queue"]).reshape(-1, 2, tiny.D)
    total = 0.0
    for t, s in ((0, 1), (1, 0)):
        seen = np.vstack([z[:, s], queue[:, s]]) if step >= START else z[:, s]
        p = np.exp(z[:, t] @ c.T / 0.1)
        log_p = np.log(p / p.sum(axis=1, keepdims=True))
        total -= np.sum(codes(seen @ c.T)[: tiny.B] * log_p, axis=1).mean()
    np.testing.assert_allclose(value, total, rtol=1e-4)


@pytest.mark.parametrize(("step", "frozen"), [(0, True), (FREEZE - 1, True), (FREEZE, False)])
def test_prototypes_learn_after_the_first_epoch(step, frozen):
    _, _, (_, (gradient, _)) = at(step)
    assert (tiny.largest(gradient["prototypes"]) == 0) == frozen
    assert tiny.largest(gradient["encoder"]) > 0


def test_weight_decay_does_not_turn_frozen_prototypes():
    params, _, (_, (gradient, _)) = at(0)
    params, gradient = ({"prototypes": tree["prototypes"]} for tree in (params, gradient))
    optimizer = optim.build(config(), steps_per_epoch=1)
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    new: Any = optax.apply_updates(params, updates)
    before, after = np.asarray(params["prototypes"]), np.asarray(new["prototypes"])
    assert np.abs(after - before).max() > 1e-6
    np.testing.assert_allclose(tiny.unit(after), tiny.unit(before), atol=3e-7)


@pytest.mark.parametrize("step", [6, 7])
def test_the_queue_takes_the_batch_in_place_of_the_oldest(step):
    params, state, ((_, (new, _)), _) = at(step)
    slot = step % SLOTS
    before, after = state["memory"]["queue"], new["memory"]["queue"]
    np.testing.assert_allclose(after[:, slot], embeddings(params, state), atol=1e-5)
    np.testing.assert_array_equal(after[:, 1 - slot], before[:, 1 - slot])
    assert new["memory"]["step"] == step + 1


@pytest.mark.parametrize(("step", "age"), [(0, 0), (1, 1), (2, 1.5), (7, 1.5)])
def test_queue_age_is_the_mean_over_the_filled_slots(step, age):
    _, _, ((_, (_, metrics)), _) = at(step)
    assert metrics["queue_age"] == age


def test_prototypes_used():
    params, state, ((_, (_, metrics)), _) = at(FREEZE)
    nearest = (embeddings(params, state) @ tiny.unit(np.float64(params["prototypes"])).T).argmax(-1)
    assert metrics["prototypes_used"] == pytest.approx(len(np.unique(nearest)) / PROTOTYPES)


def test_without_a_queue():
    method: Any = methods.build(config(queue=0))
    memory = method.memory({}, {}, methods.Plan(records=tiny.B, steps=STEPS))
    assert memory.keys() == {"step", "freeze"}
    assert method.rows == ()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prototypes": 49}, "a batch of 16 and a queue of 32 are too few for 49 prototypes"),
        ({"prototypes": 0}, "model.prototypes=0: must be above zero"),
        ({"queue": 24}, "model.queue=24: must be 0 or a multiple of the batch, 16"),
        ({"queue_from": 1.0}, r"model.queue_from=1.0: must be in \[0, 1\)"),
        ({"epsilon": 0.0}, "model.epsilon=0.0: must be above zero"),
        ({"freeze": -1}, r"model.freeze=-1: must be in \[0, 20\), the epochs"),
        ({"freeze": 20}, r"model.freeze=20: must be in \[0, 20\), the epochs"),
    ],
)
def test_bad_input(wrong, message):
    with pytest.raises(UserError, match=message):
        methods.build(config(**wrong))


@pytest.mark.parametrize("wrong", [{"queue_from": 0.99}, {"queue": STEPS * tiny.B}])
def test_a_queue_that_would_never_be_used(wrong):
    method: Any = methods.build(config(**wrong))
    with pytest.raises(UserError, match="would first be used in update 41 of 40"):
        method.memory({}, {}, methods.Plan(records=tiny.B, steps=STEPS))
