"""`ecg_jax.plan`, with CPU devices in place of those that it names."""

import dataclasses
import json
import sys

import jax
import pytest

from ecg_jax import plan
from ecg_jax.errors import UserError
from ecg_jax.planning import bounds, hlo, show, targets
from ecg_jax.planning.estimate import estimate
from ecg_jax.runtime import parallel

KEYS = (
    "target devices fits memory_bytes capacity_bytes flops_per_record bytes_per_record kernels "
    "collectives records_per_second_bound limited_by"
)


@pytest.fixture
def here(monkeypatch):
    """A target's devices are this machine's."""

    def mesh(self):
        return parallel.make_mesh(jax.devices()[: self.devices])

    monkeypatch.setattr(targets.Target, "mesh", mesh)


def test_an_estimate(small, here, tmp_path, monkeypatch):
    """All of it: text, JSON, and the number of devices changed."""
    small.steps_per_dispatch = 1
    small.model.dtype = "float32"
    e = estimate(small, targets.parse("v5e:2x4"), 320)
    facts = json.loads(json.dumps(e.facts()))
    assert set(KEYS.split()) <= set(facts)
    assert facts["fits"] and facts["devices"] == 8
    rate = facts["records_per_second_bound"]
    assert rate == pytest.approx(64 / max(facts["seconds_per_step"].values()))
    assert {c["kind"] for c in facts["collectives"]} >= {"all-reduce"}
    halved, same = e.on(4), e.on(8)
    assert halved.arithmetic == pytest.approx(2 * same.arithmetic)
    assert same.memory == pytest.approx(e.bound.memory)
    assert same.interconnect == pytest.approx(e.bound.interconnect)
    assert e.on(1).interconnect == 0
    text = show.text(e)
    assert "not measurements" in text and f"{rate:,.0f} records/s" in text


def test_bounds():
    chip = targets.sheet()["h100"]
    one = hlo.Collective("all-reduce", 16, 10**9, 2 * 15 / 16 * 1e9, 2.0)
    b = bounds.bound(chip, "bfloat16", flop=989.4e9, moved=3.35e9, collectives=(one,), devices=16)
    assert (b.arithmetic, b.memory) == (pytest.approx(1e-3), pytest.approx(1e-3))
    # Of two hosts, half of the sum leaves each, over eight adapters: 2 x 1/2 x 1 GB / 400 GB/s.
    assert b.interconnect == pytest.approx(2 * max(1.875 / 450, 1 / 400))
    assert b.limited_by == "interconnect" and b.seconds == b.interconnect


def test_a_gpus_memory_is_what_jax_takes_of_it(monkeypatch):
    chip = targets.sheet()["h100"]
    monkeypatch.delenv(bounds.GPU_SHARE_VARIABLE, raising=False)
    assert bounds.capacity(chip) == round(0.75 * chip.memory)
    monkeypatch.setenv(bounds.GPU_SHARE_VARIABLE, "0.9")
    assert bounds.capacity(chip) == round(0.9 * chip.memory)


def test_a_split_that_does_not_fit_is_refused_before_compiling(small, here):
    says = r"does not fit: 25 GB of records .*--config.stream=True"
    with pytest.raises(bounds.DoesNotFitError, match=says) as error:
        estimate(small, targets.parse("v5e:2x4"), 8_340_000)
    facts = plan.unfit(targets.parse("v5e:2x4"), error.value)
    assert set(KEYS.split()) <= set(facts)
    assert not facts["fits"] and facts["memory_bytes"] > facts["capacity_bytes"] == 16e9


def test_a_batch_that_does_not_divide(small, here):
    small.batch_size = 100
    with pytest.raises(UserError, match=r"100 records at a time .* do not divide over 8 devices"):
        estimate(small, targets.parse("v5e:2x4"), 320)


@pytest.mark.parametrize(
    ("change", "advises"),
    [
        ({"split": 60}, "stream=True"),
        ({"temporaries": 60}, "remat=True"),
        ({"temporaries": 60, "model.remat": True}, "accumulate=2"),
        ({"temporaries": 60, "model.remat": True, "accumulate": 8}, "more devices"),
        ({"temporaries": 1, "batch_size": 2**16}, "loss=ring"),
    ],
)
def test_advice(small, change, advises):
    found = bounds.Memory(0, 0, 0, 0, 0, 0, 100 * 10**9)
    for name, value in change.items():
        if "." in name or name in small:
            group = small.model if "." in name else small
            group[name.split(".")[-1]] = value
        else:
            found = dataclasses.replace(found, **{name: value * 10**9})
    assert advises in bounds.advice(small, 8, found)


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["plan", "--config", "configs/etp.py", *arguments])
    return plan.read(sys.argv)


def test_records_are_the_published_ones(monkeypatch, capsys):
    config, name, records, file = command(monkeypatch, "--target", "h100")
    assert (config.dataset, name, records, file) == ("ptb_xl", "h100", 17_418, "")
    assert "17,418 records, as published" in capsys.readouterr().out
    assert command(monkeypatch, "--target", "h100", "--records", "9")[2] == 9


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--target is missing"),
        (("--target", "h100", "--records", "0"), "above zero"),
        (("--target", "h100", "--config.dataset", "mine"), "say it with --records"),
        (("--target", "h100", "--config.model.widht", "3"), "did you mean model.width"),
    ],
)
def test_a_wrong_command_line(arguments, says, monkeypatch):
    with pytest.raises(UserError, match=says):
        command(monkeypatch, *arguments)
