"""The step made of shapes is the one that training makes of arrays."""

import jax
import pytest

from ecg_jax.planning import bounds, program, targets
from ecg_jax.run.experiment import open_experiment
from ecg_jax.runtime import parallel
from ecg_jax.training import feed, optim
from ecg_jax.training.state import init


def on_devices(tree):
    """Bytes of real arrays on the first device."""
    first = jax.devices()[0]
    shards = [s for x in jax.tree.leaves(tree) for s in x.addressable_shards]
    return sum(s.data.nbytes for s in shards if s.device == first)


@pytest.mark.parametrize("stream", [False, True])
def test_shapes_and_layout_are_those_of_training(small, stream):
    small.stream = stream
    experiment = open_experiment(small)
    data, plan, steps = feed.load(experiment)
    state = init(experiment, optim.build(small, steps), plan)
    fed = next(feed.feeder(data, 0, plan.steps))
    width = experiment.tower.width
    step = program.trace(small, experiment.mesh, records=plan.records, width=width, length=1)
    assert step.steps == steps

    def described(tree):
        return jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding.spec), tree)

    assert described(step.state) == described(state)
    found, there = described(step.data), described(fed)
    assert found.split == there.split
    assert found.tables[1:] == there.tables[1:]  # how many reports are distinct, only the data say
    assert program.device_bytes(step.state) == on_devices(state)


def test_memory_is_that_of_training(small):
    small.shards = 8
    mesh = parallel.make_mesh()
    step = program.trace(small, mesh, records=320, width=384, length=1)
    compiled = step.compile()
    found = bounds.memory(step, compiled, targets.sheet()["v5e"])
    analysis = compiled.memory_analysis()
    held = analysis.argument_size_in_bytes + analysis.temp_size_in_bytes
    assert found.total == pytest.approx(held, rel=0.01)
    assert abs(found.padding) < 0.01 * found.total
    assert found.split == 8 * (320 // 8) // 8 * (1000 * 12 * 2 + 12 + 4) + 4 + 320 * (384 + 2) * 4
    assert found.capacity == 16e9


def test_the_type_of_activations_follows_the_platform(small):
    small.model.dtype = "auto"
    assert program.resolved(small, "gpu").model.dtype == "bfloat16"
    assert program.resolved(small, "cpu").model.dtype == "float32"
    assert small.model.dtype == "auto"
