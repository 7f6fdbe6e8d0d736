"""Model FLOP utilisation of a run, by the figures that a plan of it is made of."""

from typing import Any

from ecg_jax import Config
from ecg_jax.planning.flops import flops_per_record
from ecg_jax.planning.targets import Chip, sheet

TPUS = {"TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v5p": "v5p", "TPU v6 lite": "v6e"}


def chip_of(device: Any) -> Chip | None:
    """What the data sheet says of a device; None if it knows no such one."""
    chips, kind = sheet(), str(device.device_kind)
    if kind in TPUS:
        return chips[TPUS[kind]]
    titled = [chip for chip in chips.values() if kind.startswith(chip.title)]
    named = [c for n, c in chips.items() if n in kind.lower().replace("-", " ").split()]
    return next(iter([*titled, *named]), None)


def seconds_per_record(config: Config, width: int, device: Any, dtype: str) -> float:
    """The time that a record of a training step takes on a device at its peak: records a second
    and device, times this, are the model FLOP utilisation. 0 where the peak is not known.

    Args:
      width: of the text embeddings; 0 for a method without a text side.
      dtype: of the activations.
    """
    chip = chip_of(device)
    if chip is None or dtype not in chip.flops:
        return 0.0
    return flops_per_record(config, width) / chip.flops[dtype]
