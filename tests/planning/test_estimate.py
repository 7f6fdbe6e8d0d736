"""What a plan says of other numbers of devices than it was compiled for."""

import pytest

from configs import etp
from ecg_jax.planning import bounds, hlo, show, targets
from ecg_jax.planning.estimate import Estimate

STATE = 70_000_000  # bytes of parameters, and as many of the optimiser


def plan(target, moved, whole):
    """Of a step that moves so many bytes, or `whole` if nothing stayed on the chip."""
    config = etp.get_config("rate=100,text=minilm")
    config.update(batch_size=512)
    config.model.dtype = "bfloat16"
    memory = bounds.Memory(STATE, STATE, 0, 0, 0, 0, 16_000_000_000)
    counts = hlo.Counts(400, moved, whole, ())
    limit = bounds.Bound(0.0, moved / targets.parse(target).chip.bandwidth, 0.0)
    rest = dict(memory=memory, flops_model=5e8, flops_program=5e8, counts=counts, bound=limit)
    return Estimate(
        config, targets.parse(target), 17_418, 34, 32, xla=None, compile_seconds=1.0, **rest
    )


def test_what_grows_with_the_records_is_divided_and_the_state_is_not():
    each = 10e6  # bytes of a record
    made = plan("h100x8", 2 * 2 * STATE + 64 * each, 0)
    assert made.on(4).memory == pytest.approx((4 * STATE + 128 * each) / 3.35e12)
    assert made.on(8).memory == pytest.approx(made.bound.memory)


def test_what_cannot_be_divided_is_not_worked_out():
    """Two records of a chip move less than the state is large: nothing follows for 512."""
    made = plan("v5e:16x16", 32e6, 148e6)
    assert not made.grows and plan("h100x8", 770e6, 0).grows
    assert "Other numbers of devices are not worked out: with 2 records on each" in show.text(made)
