"""MoCo: keys of a slow network, a queue of them in version 2, a predictor in version 3."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ecg_jax import methods
from ecg_jax.errors import UserError
from ecg_jax.methods.shared.towers import Towers
from ecg_jax.models.heads import MLP
from ecg_jax.models.siamese import Outputs, Siamese, encoder

MOMENTUM, STEPS, SLOTS = 0.9, 40, 3


def config(**model):
    return tiny.config(
        "moco", **{"momentum": MOMENTUM, "queue": SLOTS * tiny.B, "temperature": 0.2} | model
    )


@functools.cache
def begun(version):
    """method, params, state with a key encoder apart from the query's, and a function of a step."""
    method: Any = methods.build(config(version=version))
    params, state = tiny.start(method, STEPS)
    state["memory"]["target"] = tiny.moved(state["memory"]["target"], 1)
    return method, params, state, tiny.step(method)


def view(i):
    """Records of update i, which no other update has."""
    return tiny.view(i)._replace(row=jnp.arange(i * tiny.B, (i + 1) * tiny.B, dtype=jnp.int32))


@functools.cache
def updates():
    """(state before, what a step returns) of SLOTS + 2 updates of version 2 on records of their
    own, in which no parameter moves."""
    _, params, state, step = begun(2)
    made = []
    for i in range(SLOTS + 2):
        out = step(params, state, view(i))
        made.append((state, out))
        state = out[0][1][0]
    return made


@functools.cache
def pairs(i):
    """q, k [B, D] of update i of version 2."""
    _, params, state, _ = begun(2)
    network = Siamese(encoder(config()), MLP((12, tiny.D)))
    before, _ = updates()[i]
    x = tiny.two_views(tiny.view(i))
    variables = {"params": params, "batch_stats": state["batch_stats"]}
    q = tiny.outputs(network, variables, x[:, :1]).projection[:, 0]
    k = tiny.outputs(network, before["memory"]["target"], x[:, 1:]).projection[:, 0]
    return tiny.unit(q), tiny.unit(k)


def look_up(q, keys, positive):
    """-log exp(q . k+ / tau) / sum_k exp(q . k / tau) over the rows of keys."""
    each = np.exp(keys @ q / 0.2)
    return -np.log(each[positive] / each.sum())


@pytest.mark.parametrize("i", [1, SLOTS + 1])
def test_loss_is_equation_1_against_the_keys_of_earlier_batches(i):
    q, k = pairs(i)
    queue = np.vstack([pairs(j)[1] for j in range(max(i - SLOTS, 0), i)])
    expected = np.mean([look_up(q[n], np.vstack([k[n], queue]), 0) for n in range(tiny.B)])
    _, ((value, _), _) = updates()[i]
    np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_the_first_update_has_no_negatives():
    _, ((value, (_, metrics)), _) = updates()[0]
    assert value == pytest.approx(0, abs=1e-6)
    assert metrics["queue_age"] == 0


@pytest.mark.parametrize("i", range(SLOTS + 2))
def test_keys_take_the_place_of_the_oldest(i):
    before, ((_, (after, _)), _) = updates()[i]
    before, after = before["memory"], after["memory"]
    oldest = int(np.argmin(before["written"]))
    np.testing.assert_allclose(after["queue"][:, oldest], pairs(i)[1], atol=1e-5)
    others = np.arange(SLOTS) != oldest
    np.testing.assert_array_equal(after["queue"][:, others], before["queue"][:, others])
    np.testing.assert_array_equal(after["written"][others], before["written"][others])
    assert after["written"][oldest] == i


@pytest.mark.parametrize(("i", "age"), [(1, 1), (2, 1.5), (SLOTS, 2), (SLOTS + 1, 2)])
def test_queue_age_is_the_mean_over_the_filled_slots(i, age):
    """Of three slots, keys are 1, 2 and 3 updates old when they are used."""
    _, ((_, (_, metrics)), _) = updates()[i]
    assert metrics["queue_age"] == age


def test_the_queue_lies_in_parts():
    method, _, state, _ = begun(2)
    assert method.rows == ("queue", "rows")
    assert state["memory"]["queue"].shape[0] == state["memory"]["rows"].shape[0] == tiny.B


def test_a_records_own_older_key_is_no_negative():
    """Records of update 0 come again in update 1, in another order."""
    _, params, _, step = begun(2)
    state = updates()[0][1][0][1][0]
    row = jnp.roll(jnp.arange(tiny.B, dtype=jnp.int32), 1)
    (value, (after, _)), _ = step(params, state, view(1)._replace(row=row))
    (q, k), (_, older) = pairs(1), pairs(0)
    each = [
        look_up(q[n], np.vstack([k[n], older[np.arange(tiny.B) != row[n]]]), 0)
        for n in range(tiny.B)
    ]
    np.testing.assert_allclose(value, np.mean(each), rtol=1e-4)
    np.testing.assert_array_equal(after["memory"]["rows"][:, 1], row)


@pytest.mark.parametrize(
    ("parts", "shuffled"),
    [({}, False), ({"accumulate": 2}, True), ({"parallel.batch_norm": "device"}, True)],
)
def test_keys_are_shuffled_over_the_parts_that_statistics_are_of(parts, shuffled, monkeypatch):
    """Section 3.3; and every key comes back to its record."""
    c, seen = config(), []
    c.update_from_flattened_dict(parts)

    def train(self, params, state, x):
        seen.append(np.asarray(x[:, 0]))
        z = x.mean(axis=2)[..., : tiny.D]
        return Outputs(z, z), {}

    monkeypatch.setattr(Towers, "views", lambda self, key, view: tiny.two_views(view))
    monkeypatch.setattr(Towers, "train", train)
    method = methods.build(c)
    memory = method.memory({}, {"batch_stats": {}}, methods.Plan(tiny.B, STEPS))
    state = {"batch_stats": {}, "memory": memory}
    _, (after, _) = method.loss({}, state, tiny.view(), jax.random.key(0))
    after = tiny.written({"memory": after["memory"]}, {"memory": memory})
    queries, keys = seen
    x = np.asarray(tiny.two_views(tiny.view()))
    np.testing.assert_array_equal(queries, x[:, 0])
    assert np.array_equal(keys, x[:, 1]) != shuffled
    np.testing.assert_array_equal(np.sort(keys, axis=0), np.sort(x[:, 1], axis=0))
    expected = tiny.unit(x[:, 1].mean(axis=1)[:, : tiny.D])
    np.testing.assert_allclose(after["memory"]["queue"][:, 0], expected, rtol=1e-4, atol=1e-5)


def test_a_queue_that_a_run_does_not_fill_is_refused():
    method = methods.build(config())
    with pytest.raises(UserError, match=r"queue of 48 keys would first be full in update 4 of 3"):
        method.memory(*begun(2)[1:3], methods.Plan(records=64, steps=SLOTS))


def test_in_batch_loss_is_algorithm_1():
    _, params, state, step = begun(3)
    (value, _), (gradient, _) = step(params, state, tiny.view())
    heads = MLP((12, tiny.D), norm_last=True), MLP((12, tiny.D))
    network = Siamese(encoder(config()), *heads)
    x = tiny.two_views(tiny.view())
    variables = {"params": params, "batch_stats": state["batch_stats"]}
    q = tiny.unit(tiny.outputs(network, variables, x).prediction)
    k = tiny.unit(tiny.outputs(network, state["memory"]["target"], x).projection)
    total = 0.0
    for one, two in ((0, 1), (1, 0)):
        each = [look_up(q[i, one], k[:, two], i) for i in range(tiny.B)]
        total += 2 * 0.2 * np.mean(each)
    np.testing.assert_allclose(value, total, rtol=1e-4)
    assert all(tiny.largest(gradient[part]) > 0 for part in ("encoder", "projector", "predictor"))


@pytest.mark.parametrize("version", [2, 3])
def test_the_key_encoder_has_no_gradient(version):
    _, params, state, step = begun(version)
    _, (_, in_state) = updates()[1][1] if version == 2 else step(params, state, tiny.view())
    assert tiny.largest(in_state["memory"]["target"]) == 0


@pytest.mark.parametrize(
    ("version", "step", "momentum"),
    [
        (2, 0, MOMENTUM),
        (2, STEPS, MOMENTUM),
        (3, 0, MOMENTUM),
        (3, STEPS // 2, 1 - (1 - MOMENTUM) / 2),
        (3, STEPS, 1),
    ],
)
def test_every_leaf_of_the_key_encoder_follows(version, step, momentum):
    method, params, state, _ = begun(version)
    state = {**state, "memory": {**state["memory"], "step": jnp.int32(step)}}
    new = jax.jit(method.after_update)(params, state)
    query = {"params": params, "batch_stats": state["batch_stats"]}
    tiny.check_average(new["memory"]["target"], state["memory"]["target"], query, momentum)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"queue": 24}, "a queue of 24 keys is not filled by batches of 16"),
        ({"queue": 8}, "a queue of 8 keys is not filled by batches of 16: .* a multiple of 16"),
        ({"queue": 0}, "a queue of 0 keys"),
        ({"version": 1}, "model.version=1: there are MoCo 2 and 3"),
        ({"momentum": 1.0}, r"model.momentum=1.0: must be in \[0, 1\)"),
    ],
)
def test_bad_input(wrong, message):
    with pytest.raises(UserError, match=message):
        methods.build(config(**wrong))
