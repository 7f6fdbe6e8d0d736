"""A run's model FLOP utilisation is its plan's arithmetic over its plan's peak."""

from types import SimpleNamespace

import pytest

from configs import simclr
from ecg_jax.planning import flops, targets, utilisation
from ecg_jax.training.pace import Pace


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("TPU v5 lite", "v5e"),
        ("TPU v6 lite", "v6e"),
        ("cpu", None),
    ],
)
def test_devices_are_found_by_what_jax_calls_them(kind, name):
    chip = utilisation.chip_of(SimpleNamespace(device_kind=kind))
    assert (chip and chip.name) == name


def test_a_run_at_the_peak_of_its_chips_has_a_utilisation_of_one(monkeypatch):
    config = simclr.get_config("demo")
    config.batch_size = 32
    device = SimpleNamespace(device_kind="TPU v5 lite")
    seconds = utilisation.seconds_per_record(config, 0, device, "bfloat16")
    peak = targets.sheet()["v5e"].flops["bfloat16"]
    assert seconds == flops.flops_per_record(config, 0) / peak
    assert utilisation.seconds_per_record(config, 0, SimpleNamespace(device_kind="cpu"), "") == 0
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    pace = Pace(32, 4, seconds)
    pace.stepped(10)
    now[0] = 10 * 32 * seconds / 4  # 4 chips, each at its peak
    row = pace.row()
    assert row["pace/model_flop_utilisation"] == pytest.approx(1)
    assert row["pace/ecg_per_second_per_chip"] == pytest.approx(1 / seconds)
    assert pace.row() == {}
