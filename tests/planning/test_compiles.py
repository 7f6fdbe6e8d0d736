"""Every method's training step compiles for devices that are not here, as a small network."""

import importlib

import agreement
import pytest

from ecg_jax.models import resnet1d
from ecg_jax.planning import program, targets


@pytest.fixture(scope="module", params=["v5e:2x2", "h100"])
def mesh(request):
    target = targets.parse(request.param)
    if not targets.installed(target.chip):
        pytest.skip(f"the compiler for {request.param} is not installed")
    return target.mesh()


@pytest.mark.parametrize("name", agreement.METHODS)
def test_a_training_step(mesh, name, monkeypatch):
    monkeypatch.setattr(resnet1d, "STAGES", agreement.SHALLOW)
    config = importlib.import_module(f"configs.{name}").get_config("rate=100")
    config.update(batch_size=16, shards=16, seconds=5.0)
    small = {"width": 8, "hidden": 16, "dim": 8, "dtype": "bfloat16"}
    config.model.update(small | agreement.OWN.get(name, {}))
    for chain in ("augment", "augment_second"):
        config[chain] = config[chain][:2]
    width = 24 if "text" in config else 0
    step = program.trace(config, mesh, records=512, width=width, length=1)
    assert step.compile().memory_analysis().temp_size_in_bytes >= 0
