"""How arrays lie on the mesh, and statistics per device."""

import agreement
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from ecg_jax.errors import UserError
from ecg_jax.evaluation import controls
from ecg_jax.methods import Plan
from ecg_jax.run import config as config_lib
from ecg_jax.run import workdir
from ecg_jax.run.experiment import open_experiment
from ecg_jax.runtime import parallel
from ecg_jax.runtime.arrays import digests
from ecg_jax.runtime.checkpoint import Checkpoints
from ecg_jax.training import optim
from ecg_jax.training.state import init


@pytest.mark.parametrize(
    ("shape", "devices", "axis"),
    [((3, 64, 128), 8, 2), ((256, 128), 8, 0), ((7,), 8, None), ((), 8, None), ((8,), 1, None)],
)
def test_the_longest_axis_that_divides_is_spread(shape, devices, axis):
    spec = parallel.spread(jax.ShapeDtypeStruct(shape, jnp.float32), devices)
    assert tuple(spec) == (() if axis is None else (*[None] * axis, "data"))


def test_statistics_per_device_are_the_mean_of_each_devices_own():
    norm = nn.BatchNorm(use_running_average=False, momentum=0.9)
    rng = np.random.default_rng(0)
    x = (
        rng.standard_normal((64, 5)).astype(np.float32)
        * np.linspace(1, 4, 64, dtype=np.float32)[:, None]
    )
    variables = norm.init(jax.random.key(0), x)
    mesh = parallel.make_mesh()

    def apply(variables, x):
        return norm.apply(variables, x, mutable=["batch_stats"])

    def loss(variables, x):
        with parallel.mesh_of(x):
            y, state = parallel.per_device(apply)(variables, x)
        return jnp.sum(jnp.sin(y)), (y, state)

    def by_hand(variables, x):
        parts = [apply(variables, part) for part in jnp.split(x, 8)]
        y = jnp.concatenate([y for y, _ in parts])
        state = jax.tree.map(lambda *leaves: sum(leaves) / 8, *(state for _, state in parts))
        return jnp.sum(jnp.sin(y)), (y, state)

    sharded = parallel.put(x, parallel.by_record(mesh))
    found = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables, sharded)
    wanted = jax.value_and_grad(by_hand, has_aux=True)(variables, x)
    for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    whole, _ = apply(variables, x)
    assert np.abs(found[0][1][0] - whole).max() > 0.1


def test_optimiser_state_in_parts_is_saved_and_comes_back_otherwise(simulated, tmp_path):
    config = agreement.small(simulated)
    config.parallel.shard_optimizer = True
    state = init(open_experiment(config), optim.build(config, 5), Plan(100, 5))
    rng = np.random.default_rng(0)
    moments = jax.tree.map(
        lambda x: jax.device_put(rng.random(x.shape).astype(x.dtype), x.sharding), state.optimizer
    )
    state = state.replace(optimizer=moments)
    assert sum(x.addressable_data(0).nbytes for x in jax.tree.leaves(moments)) < (
        sum(x.nbytes for x in jax.tree.leaves(moments)) / 6
    )
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, state, {})
    checkpoints.close()

    def copies(devices):
        sharding = parallel.replicated(parallel.make_mesh(jax.devices()[:devices]))
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state
        )

    for like in (copies(8), copies(1), state):
        _, restored, _ = Checkpoints(tmp_path).restore(like)
        assert digests(restored) == digests(state)
        for a, b in zip(*map(jax.tree.leaves, (restored, like)), strict=True):
            assert a.sharding == b.sharding


def test_training_with_statistics_per_device_and_the_sigmoid_loss(simulated, monkeypatch):
    agreement.shallow(monkeypatch.setattr)
    other = agreement.training(agreement.small(simulated))[0]
    config = agreement.small(simulated)
    config.parallel.update(batch_norm="device", loss="ring", shard_optimizer=True)
    config.model.update(loss="sigmoid", temperature=0.1, learn_temperature=True)
    figures = agreement.training(config)[0]
    assert figures["losses"][-1] < figures["losses"][0]
    assert figures["last[0]['bias']"] != figures["first.params['bias']"]
    stem = "first.method['batch_stats']['norm_stem']"
    np.testing.assert_allclose(figures[f"{stem}['mean']"], other[f"{stem}['mean']"], atol=1e-5)
    # Within a device's records there is less variance than between all.
    assert (figures[f"{stem}['var']"] < other[f"{stem}['var']"]).all()


def test_statistics_per_device_stay_on_as_many_devices(simulated, tmp_path, monkeypatch):
    config = agreement.small(simulated)
    config.parallel.batch_norm = "device"
    workdir.claim(tmp_path, open_experiment(config))
    mesh = parallel.make_mesh(jax.devices()[:2])
    monkeypatch.setattr(parallel, "make_mesh", lambda: mesh)
    with pytest.raises(UserError, match=r"batch_norm is 'device', on 8 devices there and 2 here"):
        workdir.claim(tmp_path, open_experiment(config))


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("parallel.loss", "choose one of plain, gathered, ring"),
        ("parallel.batch_norm", "choose one of global, device"),
        ("model.loss", "choose one of info_nce, sigmoid"),
        ("model.convolution", "choose one of auto, plain, winograd"),
    ],
)
def test_unknown_options(small, field, message):
    small.update_from_flattened_dict({field: "x"})
    with pytest.raises(UserError, match=rf"--config\.{field}=x: {message}"):
        config_lib.check(small)


def test_the_random_control_does_not_depend_on_chunks(small):
    """Its batches are evaluation's, which the chunks of training need not divide."""
    small.batch_size, small.evaluate.batch_size = 96, 128
    states = []
    for chunks in (1, 3):
        small.accumulate = chunks
        experiment = open_experiment(small)
        params, state = experiment.init(jax.random.key(0))
        states.append(jax.device_get(controls.calibrated(experiment, params, state, batches=2)[1]))
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_statistics_of_one_record_are_refused(small):
    small.batch_size, small.parallel.batch_norm, small.shards = 8, "device", 8
    with pytest.raises(UserError, match="8 records at a time are one for each of 8 devices"):
        open_experiment(small)
    small.batch_size = 1
    with pytest.raises(UserError, match=r"a batch of 1 .* records are compared with each other"):
        open_experiment(small)


def test_chunks_that_do_not_divide_over_the_devices_are_refused(small):
    small.batch_size, small.accumulate = 32, 8
    with pytest.raises(UserError, match=r"4 records at a time .* over 8 devices: .*of 64"):
        open_experiment(small)
