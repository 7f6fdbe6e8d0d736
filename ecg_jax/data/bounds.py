"""Bounds of a recipe's options."""

import math

from ecg_jax.errors import UserError


def within(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raises a UserError unless `value` is a finite number in [low, high]."""
    if isinstance(value, int | float) and math.isfinite(value) and low <= value <= high:
        return
    limits = f"at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
    raise UserError(f"{name} must be {limits}, not {value!r}")


def whole(name: str, value: int, low: int) -> None:
    """Raises a UserError unless `value` is an integer of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise UserError(f"{name} must be a whole number of at least {low}, not {value!r}")
