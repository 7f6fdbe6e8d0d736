"""A config's training step on a target, compiled and counted: all that `ecg_jax.plan` says."""

import dataclasses
import time
from typing import Any

from ecg_jax import Config
from ecg_jax.data import resident
from ecg_jax.planning import bounds, flops, hlo, program
from ecg_jax.planning.targets import Target
from ecg_jax.run.experiment import checked, with_shards
from ecg_jax.text import tower

NOTE = "bounds from published figures and the compiled program; nothing was measured"


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Of a training step on a target.

    Attributes:
      flops_model, flops_program: of a record, by the model's definition and as computed.
      counts: of a step on each device.
      xla: the compiler's own (flops, bytes) of a loop's body on a device, or None.
      compile_seconds: of this machine.
    """

    config: Config
    target: Target
    records: int
    steps: int
    length: int
    memory: bounds.Memory
    flops_model: float
    flops_program: float
    counts: hlo.Counts
    bound: bounds.Bound
    xla: tuple[float, float] | None
    compile_seconds: float

    @property
    def batch(self) -> int:
        return self.config.batch_size

    @property
    def per_device(self) -> float:
        """Records of a step on each device."""
        return self.batch / self.target.devices

    @property
    def records_per_second(self) -> float:
        return self.batch / self.bound.seconds

    def facts(self) -> dict[str, Any]:
        """What `--json` holds; bytes and kernels are of each device."""
        c = self.counts
        return {
            "target": self.target.name,
            "devices": self.target.devices,
            "fits": self.memory.total <= self.memory.capacity,
            "memory_bytes": self.memory.total,
            "capacity_bytes": self.memory.capacity,
            "flops_per_record": self.flops_model,
            "bytes_per_record": c.bytes / self.per_device,
            "kernels": round(c.kernels),
            "collectives": [one._asdict() for one in c.collectives],
            "records_per_second_bound": self.records_per_second,
            "limited_by": self.bound.limited_by,
            "flops_per_record_computed": self.flops_program,
            "bytes_per_record_whole": c.whole / self.per_device,
            "memory": dataclasses.asdict(self.memory),
            "seconds_per_step": dataclasses.asdict(self.bound),
            "batch_size": self.batch,
            "records": self.records,
            "steps_per_epoch": self.steps,
            "steps_per_dispatch": self.length,
            "epochs": self.config.epochs,
            "shards": self.config.shards,
            "xla": self.xla and dict(zip(("flops", "bytes accessed"), self.xla, strict=True)),
            "compile_seconds": self.compile_seconds,
            "note": NOTE,
        }

    def on(self, devices: int) -> bounds.Bound:
        """The bound on another number of these devices, with the same global batch.

        Worked out from the compiled program: what grows with the records of a device is divided,
        reading and writing the state stays, and collectives keep their size. Of a program for one
        device, which has none, the gradients are reduced. Only where `grows`.
        """
        share = self.target.devices / devices
        moved = self._state_bytes + (self.counts.bytes - self._state_bytes) * share
        found = [
            c._replace(group=devices, sent=c.sent * _ring(devices) / _ring(c.group))
            for c in self.counts.collectives
            if c.group > 1 and devices > 1
        ]
        if self.target.devices == 1 and devices > 1:
            size = self.gradient_bytes
            found = [hlo.Collective("all-reduce", devices, size, 2 * _ring(devices) * size, 1.0)]
        return bounds.bound(
            self.target.chip,
            self.config.model.dtype,
            flop=self.flops_program * self.batch / devices,
            moved=moved,
            collectives=tuple(found),
            devices=devices,
        )

    @property
    def grows(self) -> bool:
        """Whether what grows with the records of a device can be told from the rest: it is most of
        what a step moves. With few records of each, a chip keeps much of the state itself."""
        return self.counts.bytes > 2 * self._state_bytes

    @property
    def _state_bytes(self) -> float:
        """The state is read and written."""
        return 2.0 * (self.memory.parameters + self.memory.optimizer + self.memory.memory)

    @property
    def gradient_bytes(self) -> int:
        """At most those of the parameters and BatchNorm's statistics."""
        copies = 2 if self.config.average else 1
        return self.memory.parameters // copies


def _ring(devices: int) -> float:
    return (devices - 1) / devices


def estimate(config: Config, target: Target, records: int) -> Estimate:
    """Compiles a config's step for a target and counts it: one to four minutes on two cores.

    Raises:
      UserError: a config that cannot be on these devices, a package that is not installed, or a
        step that does not fit.
    """
    config = program.resolved(with_shards(config, target.devices), target.chip.platform)
    method = checked(config, target.devices, target.chip.platform)
    width = tower.width(config.text.tower) if method.encode_text else 0
    mesh = target.mesh()
    resident.check_shards(mesh, config.shards)
    bounds.check_split(config, target, program.abstract_data(config, mesh, records, width))
    step = program.trace(config, mesh, records=records, width=width)
    began = time.monotonic()
    compiled = compile_step(step, target)
    took = time.monotonic() - began
    found = bounds.memory(step, compiled, target.chip)
    bounds.check_fits(config, target, found)
    counts = hlo.count(compiled.as_text(), steps=step.length, devices=target.devices)
    computed = bounds.step_flops(step)
    limit = bounds.bound(
        target.chip,
        config.model.dtype,
        flop=computed / target.devices,
        moved=counts.bytes,
        collectives=counts.collectives,
        devices=target.devices,
    )
    return Estimate(
        config,
        target,
        records,
        step.steps,
        step.length,
        found,
        flops.flops_per_record(config, width),
        computed / config.batch_size,
        counts,
        limit,
        of_xla(compiled),
        took,
    )


def compile_step(step: program.Step, target: Target) -> Any:
    """Raises a DoesNotFitError if the compiler finds that the program does not fit."""
    try:
        return step.compile()
    except RuntimeError as error:  # jax.errors.JaxRuntimeError
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = " ".join(str(error).split())[:160]
        wanted = bounds.Memory(0, 0, 0, 0, 0, 0, bounds.capacity(target.chip))
        raise bounds.DoesNotFitError(
            f"{target.name}: does not fit ({reason}): "
            f"{bounds.advice(step.config, target.devices, wanted)}",
            0,
            wanted.capacity,
        ) from None


def of_xla(compiled: Any) -> tuple[float, float] | None:
    """The compiler's own (flops, bytes) of a loop's body on a device; None for a GPU."""
    try:
        found = compiled.cost_analysis()
    except (NotImplementedError, RuntimeError):  # it has none for a GPU that is not there
        return None
    return (found["flops"], found["bytes accessed"]) if found else None
