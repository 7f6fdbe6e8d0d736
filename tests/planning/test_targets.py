"""Targets' names, and what is said of one that cannot be."""

import re

import pytest

from ecg_jax.errors import UserError
from ecg_jax.planning import targets


@pytest.mark.parametrize(
    ("name", "devices", "topology"),
    [
        ("h100", 1, "1x1x1"),
        ("h100x8", 8, "1x1x8"),
        ("a100x16", 16, "1x2x8"),
        ("a100-40gbx2", 2, "1x1x2"),
        ("v5e:4x4", 16, "4x4"),
        ("v5p:4x4x8", 128, "4x4x8"),
    ],
)
def test_names(name, devices, topology):
    target = targets.parse(name)
    assert (target.devices, target.topology) == (devices, topology)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("z80", "unknown target 'z80': there are h100, h200, .*v5e"),
        ("v5e", "no such slice of TPU v5e: there are v5e:1x1, .*v5e:16x16"),
        ("v5e:3x5", "no such slice"),
        ("v5e:4x4x4", "no such slice"),
        ("h100x12", "multiple of 8"),
        ("h100x0", "multiple of 8"),
        ("h100:2", "named h100 or h100xN"),
    ],
)
def test_names_that_cannot_be(name, says):
    with pytest.raises(UserError, match=says):
        targets.parse(name)


@pytest.mark.parametrize(("name", "extra"), [("h100", "cuda"), ("v5e:2x2", "tpu")])
def test_a_missing_package_names_its_extra(name, extra, monkeypatch):
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=re.escape(f"ecg-jax[{extra}]")):
        targets.parse(name).mesh()


@pytest.mark.parametrize("name", ["h100", "v5e:2x2"])
def test_meshes(name, monkeypatch):
    target = targets.parse(name)
    if not targets.installed(target.chip):
        pytest.skip(f"the compiler for {name} is not installed")
    for variable, value in targets.TPU_ENVIRONMENT.items():  # and none of it for later tests
        monkeypatch.setenv(variable, value)
    mesh = target.mesh()
    assert mesh.devices.size == target.devices
    assert mesh.devices.flat[0].platform == target.chip.platform


def test_data_sheet():
    for chip in targets.sheet().values():
        assert chip.source and chip.flops["bfloat16"] >= chip.flops["float32"] > chip.bandwidth
        assert 1e10 < chip.memory < 1e12 and chip.link < chip.bandwidth
