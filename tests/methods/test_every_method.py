"""What every method of configs/ must do: learn, go on exactly, be the same on other hardware."""

import functools
import importlib
import re

import agreement
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from ecg_jax.errors import UserError
from ecg_jax.methods import Plan, View, build
from ecg_jax.models import resnet1d
from ecg_jax.run import config as config_lib
from ecg_jax.run.experiment import Experiment, blank, open_experiment
from ecg_jax.runtime import parallel
from ecg_jax.runtime.checkpoint import Checkpoints
from ecg_jax.training import feed, optim
from ecg_jax.training.state import init
from ecg_jax.training.step import chosen, make_dispatch

# Fields of config.model that are read if another one has not its usual value.
OF_OTHER_CHOICES = {
    "etp": {"bias"},
    "mets": {"bias"},
    "clocs": {"leads", "leads_per_step"},
    "swav": {"queue_from"},
}
OTHERS = {  # values of fields that are no numbers, or not any number
    "depth": [34],
    "groups": [(("I", "II"), ("V1", "V2"), ("V5", "V6"))],
    "queue": [16],
    "leads": [("II", "V1", "V5")],
    "loss": ["sigmoid"],
    "dtype": ["bfloat16"],
    "convolution": ["winograd"],
    "kind": ["cmlc", "cmsc"],
    "contrast": ["code"],
    "group": [8],
    "strides": [(2, 4)],
    "extractor": ["layer"],
    "graph": ["core", "full"],
    "rhythm": ["exp", "softclt"],
    "beat": ["exp", "softclt"],
    "form": ["weighted"],
    "against": ["batch"],
}


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    agreement.shallow(monkeypatch.setattr)


@pytest.fixture(params=[*agreement.METHODS, *agreement.VARIANTS])
def config(request, simulated):
    return agreement.tiny(request.param, simulated)


def test_learns_one_batch(config):
    """The gap between the loss and its least value closes by half in 120 updates, records stay
    apart, and the first layer of the encoder, which heads could learn a batch without, is told
    how."""
    method, rng = build(config), np.random.default_rng(0)
    B, T = config.batch_size, round(config.seconds * config.rate)
    rows = jnp.arange(B)
    view = View(
        ecg=jnp.asarray(rng.standard_normal((B, T, 12)), jnp.float32),
        lead_mask=jnp.ones((B, 12), bool),
        text=jnp.asarray(rng.standard_normal((B, 24)), jnp.float32),
        text_id=rows,
        row=rows,
        patient=rows,
    )
    state = tiny_state(method, view)
    optimizer = optim.build(config, 120)
    params, state, moments = state[0], state[1], optimizer.init(state[0])

    @jax.jit
    def step(params, state, moments, key):
        (loss, (new, metrics)), gradient = jax.value_and_grad(method.loss, has_aux=True)(
            params, state, view, key
        )
        updates, moments = optimizer.update(gradient, moments, params)
        params = jax.tree.map(jnp.add, params, updates)
        if method.after_update is not None:
            new = method.after_update(params, new)
        state = chosen(jnp.array(True), new, state)
        return params, state, moments, loss, metrics, stem_of(gradient["encoder"])

    losses = []
    for _ in range(120):
        params, state, moments, loss, metrics, stem = step(
            params, state, moments, jax.random.key(0)
        )
        losses.append(float(loss))
        if len(losses) == 1 + agreement.BEGINS.get(config.method, 0):
            assert all(np.abs(leaf).max() > 1e-6 for leaf in jax.tree.leaves(stem))
    assert np.isfinite(losses).all() and all(np.isfinite(list(metrics.values())))
    least = agreement.LEAST.get(config.method, 0.0)
    first = losses[agreement.BEGINS.get(config.method, 0)]
    assert losses[-1] - least < (first - least) / 2
    assert metrics["embedding_std"] > 0.3, metrics


def stem_of(encoder):
    return encoder.get("tokenizer", encoder)["conv_stem"]


def test_reads_its_augmentations(config, request):
    """Noise in place of none, which no BatchNorm takes away, in either view, changes the first loss
    (of MoCo, whose queue is empty, its metrics alone)."""
    B, T = config.batch_size, round(config.seconds * config.rate)
    view = blank(T, 24 if "text" in config else 0)
    rng, rows = np.random.default_rng(0), jnp.arange(B)
    arrays = {"ecg": rng.standard_normal((B, T, 12)), "text": rng.standard_normal((B, 24))}
    arrays = {name: jnp.asarray(x, jnp.float32) for name, x in arrays.items()}
    view = View(lead_mask=jnp.ones((B, 12), bool), text_id=rows, row=rows, patient=rows, **arrays)
    figures = []
    two = request.node.callspec.params["config"] in agreement.METHODS and two_chains(config)
    for sds in ((0.0, 0.0), (2.0, 0.0), (0.0, 2.0)) if two else ((0.0,), (2.0,)):
        chains = [({"name": "jitter", "sd": sd},) for sd in sds]
        config.update(dict(zip(("augment", "augment_second"), chains, strict=False)))
        method = build(config)
        run = jax.jit(method.loss)
        loss, (_, metrics) = run(*tiny_state(method, view), view, jax.random.key(0))
        figures.append(np.array([loss, metrics["positive_cosine"]]))
    for noisy in figures[1:]:
        assert np.abs(figures[0] - noisy)[config.method == "moco" :].max() > 1e-4


def two_chains(config):
    """Whether augmentations of a second view are not refused."""
    asked = config.copy_and_resolve_references()
    asked.augment_second = asked.augment
    try:
        build(asked)
    except UserError:
        return False
    return True


def test_parts_of_records_are_compared_in_whole_records_alone(config):
    """Else zeros would stand where a record has ended: `train.check_split`."""
    kind = config.model.get("kind", "")
    parts = {"pirl", "cpc", "tstcc", "astcl", "w2v_cmsc"} | (
        {"clocs"} if kind in ("cmsc", "cmsmlc") else set()
    )
    assert build(config).whole == (config.method in parts)


@pytest.mark.parametrize("config", agreement.METHODS, indirect=True)
def test_every_field_of_its_config_changes_what_is_computed(config, monkeypatch, request):
    """One that does not would let a run claim what was not done. (A word is not tried that OTHERS
    does not name.)"""
    monkeypatch.setattr(resnet1d, "STAGES", {18: (1, 1), 34: (1, 2)})
    file = request.node.callspec.params["config"]
    fields = set(importlib.import_module(f"configs.{file}").get_config().model.keys())
    fields -= {name for name in fields - set(OTHERS) if isinstance(config.model[name], str)}
    if config.method != "simclr":  # all have the one encoder
        fields -= {"depth", "width", "dtype", "convolution", "remat"}
    usual = computed(config)
    assert computed(config) == usual
    idle = {name for name in fields if otherwise(config, name) == usual}
    assert idle == OF_OTHER_CHOICES.get(config.method, set())


def otherwise(config, name):
    """What is computed with another value of a field of config.model, the first that is allowed."""
    value = config.model[name]
    if name in OTHERS:
        others = OTHERS[name]
    elif isinstance(value, bool):
        others = [not value]
    else:
        others = [type(value)(x) for x in (value - 1, value + 1, value / 2, value * 2, 0.5)]
    for other in others:
        if other == value:
            continue
        changed = config.copy_and_resolve_references()
        changed.model[name] = other
        try:
            config_lib.check(changed)
            return computed(changed)
        except UserError:
            pass
    pytest.fail(f"no other value of {name} is allowed")


def computed(config):
    """The programs of a method's parts, with their numbers, as text."""
    method, B = build(config), config.batch_size
    view = blank(round(config.seconds * config.rate), 24 if "text" in config else 0)
    key = jax.random.key(0)
    program, (params, state) = jax.make_jaxpr(method.init, return_shape=True)(key, view)
    programs = [program]
    if method.memory is not None:
        memory = functools.partial(method.memory, plan=Plan(B, 120))
        program, bank = jax.make_jaxpr(memory, return_shape=True)(params, state)
        programs.append(program)
        state = {**state, "memory": bank}
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((B, *x.shape[1:]), x.dtype), view)
    programs.append(jax.make_jaxpr(method.loss)(params, state, batch, key))
    if method.after_update is not None:
        programs.append(jax.make_jaxpr(method.after_update)(params, state))
    texts = [f"{p} {[np.asarray(x).tolist() for x in p.consts]}" for p in programs]
    return [re.sub("0x[0-9a-f]+", "", text) for text in texts]


def tiny_state(method, view):
    params, state = method.init(jax.random.key(0), view)
    if method.memory is not None:
        plan = Plan(len(view.ecg), 120)
        state = {**state, "memory": method.memory(params, state, plan)}
    return params, state


def begun(config, devices):
    """Dispatch, data and state at step 0."""
    whole = open_experiment(config)
    mesh = parallel.make_mesh(jax.devices()[:devices])
    experiment = Experiment(config, mesh, whole.method, whole.tower)
    data, plan, steps = feed.load(experiment)
    optimizer = optim.build(config, steps)
    state = init(experiment, optimizer, plan)
    return make_dispatch(config, whole.method, optimizer, steps), data, state


def test_goes_on_exactly_and_on_other_devices(config, tmp_path):
    dispatch, data, state = begun(config, 8)
    for name in build(config).rows:
        assert state.method["memory"][name].sharding.spec == PartitionSpec(parallel.AXIS)
    for _ in range(2):
        state, _ = dispatch(state, data, 1)
    saves = Checkpoints(tmp_path / "last", keep=1)
    saves.save(2, state, {"best": 0.0})
    saves.close()
    whole, metrics = dispatch(state, data, 1)

    _, restored, _ = Checkpoints(tmp_path / "last", keep=1).restore(whole)
    again, _ = dispatch(restored, data, 1)
    for path, leaf in jax.tree_util.tree_leaves_with_path(again):
        same = jax.tree_util.tree_leaves_with_path(whole)
        np.testing.assert_array_equal(leaf, dict(same)[path], jax.tree_util.keystr(path))

    dispatch, data, start = begun(config, 1)
    _, moved, _ = Checkpoints(tmp_path / "last", keep=1).restore(start)
    _, theirs = dispatch(moved, data, 1)
    for name, value in metrics.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-4, atol=1e-4, err_msg=name)
