"""What a training step can at best take on a device, and whether it fits: from a data sheet and
what was counted in the compiled program. Bounds, not measurements."""

import dataclasses
import os
from typing import Any

from ecg_jax import Config
from ecg_jax.data import resident
from ecg_jax.errors import UserError
from ecg_jax.planning import flops, hlo, program
from ecg_jax.planning.targets import PER_HOST, Chip, Target
from ecg_jax.training import feed

# JAX reserves so much of a GPU's memory, and allocates nothing beside it.
GPU_SHARE = 0.75
GPU_SHARE_VARIABLE = "XLA_PYTHON_CLIENT_MEM_FRACTION"
LIMITS = ("arithmetic", "memory", "interconnect")


class DoesNotFitError(UserError):
    """A step or its records take more `bytes` of each device than its `capacity`; 0 where the
    compiler did not say how many."""

    def __init__(self, message: str, size: float, room: float):
        super().__init__(message)
        self.bytes, self.capacity = round(size), round(room)


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each device while a step runs.

    Attributes:
      parameters: with BatchNorm's statistics and the running mean of both.
      optimizer: its state.
      memory: what training alone remembers (a target network, a queue).
      split: the resident records, or a stream's batch, and the tables of texts.
      temporaries: what the compiler allocates for a call, and the program itself.
      padding: what the device's layout adds to the above; below zero where arrays are not read.
      capacity: what there is.
    """

    parameters: int
    optimizer: int
    memory: int
    split: int
    temporaries: int
    padding: int
    capacity: int

    @property
    def total(self) -> int:
        parts = dataclasses.asdict(self)
        return sum(size for name, size in parts.items() if name != "capacity")


@dataclasses.dataclass(frozen=True)
class Bound:
    """The least seconds that a step takes for each of what it needs; all three may overlap."""

    arithmetic: float
    memory: float
    interconnect: float

    @property
    def seconds(self) -> float:
        return max(self.arithmetic, self.memory, self.interconnect)

    @property
    def limited_by(self) -> str:
        return max(LIMITS, key=lambda name: getattr(self, name))


def capacity(chip: Chip) -> int:
    """Bytes that a program may use of a device's memory."""
    if chip.platform == "gpu":
        share = float(os.environ.get(GPU_SHARE_VARIABLE) or GPU_SHARE)
        return round(chip.memory * share)
    return round(chip.memory)


def memory(step: program.Step, compiled: Any, chip: Chip) -> Memory:
    """What a compiled step holds, part by part."""
    state, found = step.state, compiled.memory_analysis()
    remembered = state.method.get("memory", {})
    parameters = program.device_bytes((state.step, state.params, state.average)) + (
        program.device_bytes({k: v for k, v in state.method.items() if k != "memory"})
    )
    parts = {
        "parameters": parameters,
        "optimizer": program.device_bytes(state.optimizer),
        "memory": program.device_bytes(remembered),
        "split": program.device_bytes(step.data),
    }
    outputs = found.output_size_in_bytes - found.alias_size_in_bytes  # the metrics
    temporaries = found.temp_size_in_bytes + found.generated_code_size_in_bytes + outputs
    padding = found.argument_size_in_bytes - sum(parts.values())
    return Memory(**parts, temporaries=temporaries, padding=padding, capacity=capacity(chip))


def bound(
    chip: Chip, dtype: str, *, flop: float, moved: float, collectives: tuple, devices: int
) -> Bound:
    """Of a step on each device.

    Args:
      dtype: of the activations: the rate of products in it.
      flop, moved: multiplications and additions, and bytes through memory, of a step.
      collectives: `hlo.Collective`s.
    """
    seconds = sum(c.times * seconds_of(c, chip, devices) for c in collectives)
    return Bound(flop / chip.flops[dtype], moved / chip.bandwidth, seconds)


def seconds_of(collective: hlo.Collective, chip: Chip, devices: int) -> float:
    """The least seconds of a collective: over the links of a host or slice; and of several GPU
    hosts, over the network, to which each GPU gives its part."""
    inside = collective.sent / chip.link
    if chip.platform == "tpu" or min(devices, collective.group) <= PER_HOST:
        return inside
    hosts = collective.group // PER_HOST
    ratio = ((hosts - 1) / hosts) / ((collective.group - 1) / collective.group)
    return max(inside, collective.sent * ratio / PER_HOST / chip.network)


def check_split(config: Config, target: Target, data: feed.Data) -> None:
    """Raises a DoesNotFitError if the split would be refused before training begins."""
    part, room = program.device_bytes(data.split), resident.SHARE * capacity(target.chip)
    if not config.stream and part > room:
        raise DoesNotFitError(
            f"{target.name}: does not fit: {_gb(part)} of records for each of {target.devices} "
            f"devices, and a resident split may take {_gb(room)} ({resident.SHARE:.0%} of "
            f"{_gb(capacity(target.chip))}): read them from disk in every step, "
            "--config.stream=True, or take more devices",
            part,
            capacity(target.chip),
        )


def check_fits(config: Config, target: Target, found: Memory) -> None:
    """Raises a DoesNotFitError that names the option which would help, if a step does not fit."""
    if found.total > found.capacity:
        raise DoesNotFitError(
            f"{target.name}: does not fit: a step takes {_gb(found.total)} of each device, and "
            f"there are {_gb(found.capacity)} ({_gb(found.temporaries)} are temporaries, "
            f"{_gb(found.split)} the records): {advice(config, target.devices, found)}",
            found.total,
            found.capacity,
        )


def advice(config: Config, devices: int, found: Memory) -> str:
    """What to try where memory lacks, by what takes most of it."""
    B = config.batch_size
    pairs = 4 * B * B // devices  # float32 similarities, of which the loss holds several
    if not config.stream and found.split > found.capacity / 2:
        return "read the records from disk in every step, --config.stream=True"
    if devices > 1 and config.parallel.loss == "plain" and 4 * pairs > found.temporaries / 2:
        return "compare the batch part by part, --config.parallel.loss=ring"
    if not config.model.remat:
        return "compute activations again in the backward pass, --config.model.remat=True"
    chunks = 2 * config.accumulate
    if B % (chunks * devices) == 0:
        return f"encode the batch in parts, --config.accumulate={chunks}"
    return "take more devices, or a smaller --config.batch_size"


def step_flops(step: program.Step) -> float:
    """Of all devices in one update, with what is computed again."""
    devices = step.mesh.devices.size
    return flops.of_jaxpr(step.traced.jaxpr, devices) / step.length


def _gb(size: float) -> str:
    return f"{size / 1e9:,.3g} GB"
