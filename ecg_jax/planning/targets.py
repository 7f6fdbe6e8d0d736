"""Devices to compile for without having them: `h100`, `h100x8`, `v5e:4x4`, ...

XLA compiles for a GPU from a description of it, and for a slice of TPUs through libtpu; neither
needs the device or its driver.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
import tomllib
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

from jax.experimental import topologies
from jax.sharding import Mesh

from ecg_jax.errors import UserError
from ecg_jax.runtime import parallel

SHEET = Path(__file__).with_name("devices.toml")
PER_HOST = 8  # GPUs of one host
GPU_PACKAGES = ("jax_cuda13_plugin", "jax_cuda12_plugin")
# What libtpu asks of its surroundings, which it would seek on a TPU machine's network. The type is
# that of any machine: the topology's name decides.
TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several processes may compile; none takes a TPU
}


@dataclasses.dataclass(frozen=True)
class Chip:
    """One table of `devices.toml`, which says what the fields are; from `network` on, a GPU's."""

    name: str
    title: str
    source: str
    memory: float
    bandwidth: float
    flops: dict[str, float]
    link: float
    slices: tuple[str, ...] = ()
    network: float = 0.0
    capability: str = ""
    multiprocessors: int = 0
    cores: int = 0
    threads: int = 0
    shared: int = 0
    shared_block: int = 0
    cache: int = 0
    clock: float = 0.0

    @property
    def platform(self) -> str:
        return "gpu" if self.capability else "tpu"


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices of one kind; `topology` as XLA names it: hosts' slices x hosts x GPUs, or a slice."""

    name: str
    chip: Chip
    devices: int
    topology: str

    def mesh(self) -> Mesh:
        """The mesh that training would have on these devices: to compile for, not to run on.

        Raises:
          UserError: the package that compiles for them is not installed, or there is no such
            topology.
        """
        return parallel.make_mesh(self._describe())

    def _describe(self) -> list[Any]:
        if self.chip.platform == "gpu":
            require(any(map(importlib.util.find_spec, GPU_PACKAGES)), self.name, "cuda")
            found = topologies.get_topology_desc(
                platform="cuda",
                topology_name=self.topology,
                topology=self.topology,
                target_config=gpu_description(self.chip),
            )
            return list(found.devices)
        require(importlib.util.find_spec("libtpu") is not None, self.name, "tpu")
        # Chips of a host; a single chip is a part of one.
        bounds = [1, 1, 1] if self.devices == 1 else [2, 2, 1]
        with surroundings(os.environ):
            found = topologies.get_topology_desc(
                platform="tpu",
                topology_name=f"{self.chip.name}:{self.topology}",
                chips_per_host_bounds=bounds,
            )
        return list(found.devices)


def sheet() -> dict[str, Chip]:
    """The data sheet: a chip's name -> its figures."""
    tables = tomllib.loads(SHEET.read_text(encoding="utf-8"))
    return {name: Chip(name, **table) for name, table in tables.items()}


def parse(name: str) -> Target:
    """The target of a name: a GPU and how many (`h100`, `h100x8`), or a TPU slice (`v5e:4x4`).

    Raises:
      UserError: no such device, or a number or topology that there cannot be.
    """
    chips = sheet()
    kind, _, topology = name.partition(":")
    number = 1
    if kind not in chips and (match := re.fullmatch(r"(.+?)x(\d+)", kind)):
        kind, number = match[1], int(match[2])
    if kind not in chips:
        raise UserError(f"unknown target {name!r}: there are {_known(chips)}")
    chip = chips[kind]
    if chip.platform == "gpu":
        if topology or number < 1 or (number > PER_HOST and number % PER_HOST):
            raise UserError(
                f"target {name}: GPUs are named {kind} or {kind}xN, with N up to {PER_HOST} or a "
                f"multiple of {PER_HOST} (whole hosts)"
            )
        hosts = max(1, number // PER_HOST)
        return Target(name, chip, number, f"1x{hosts}x{number // hosts}")
    if number > 1 or topology not in chip.slices:
        raise UserError(
            f"target {name}: no such slice of {chip.title}: there are "
            f"{', '.join(f'{kind}:{slice}' for slice in chip.slices)}"
        )
    return Target(name, chip, math.prod(map(int, topology.split("x"))), topology)


def _known(chips: dict[str, Chip]) -> str:
    gpus = [name for name, chip in chips.items() if chip.platform == "gpu"]
    tpus = [name for name, chip in chips.items() if chip.platform == "tpu"]
    return f"{', '.join(gpus)} (with xN for several), {', '.join(tpus)} (with a topology, v5e:4x4)"


def require(there: bool, name: str, extra: str) -> None:
    """Raises a UserError that names the extra which compiles for a target, unless it is there."""
    if not there:
        raise UserError(
            f"target {name} needs the compiler for it, which works without the device: "
            f"pip install 'ecg-jax[{extra}]' or 'jax[{'cuda12' if extra == 'cuda' else extra}]'"
        )


def installed(chip: Chip) -> bool:
    """Whether the package that compiles for a chip is there."""
    packages = GPU_PACKAGES if chip.platform == "gpu" else ("libtpu",)
    return any(importlib.util.find_spec(package) for package in packages)


@contextlib.contextmanager
def surroundings(environ: MutableMapping[str, str]) -> Iterator[None]:
    """Tells libtpu, for so long, that it is asked to compile only; what is set already stays. Left
    there, JAX would take this machine for one of a TPU's hosts."""
    added = TPU_ENVIRONMENT.keys() - environ.keys()
    environ.update({name: TPU_ENVIRONMENT[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            environ.pop(name, None)


def gpu_description(chip: Chip) -> str:
    """A card as XLA's compiler reads it (stream_executor.GpuTargetConfigProto, as text)."""
    major, minor = chip.capability.split(".")
    device = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49152,
        "shared_memory_per_core": chip.shared,
        "shared_memory_per_block_optin": chip.shared_block,
        "threads_per_core_limit": chip.threads,
        "core_count": chip.multiprocessors,
        "fpus_per_core": chip.cores,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
        "memory_bandwidth": round(chip.bandwidth),
        "device_memory_size": round(chip.memory),
        "l2_cache_size": chip.cache,
        "clock_rate_ghz": chip.clock,
    }
    fields = " ".join(f"{name}: {value}" for name, value in device.items())
    return (
        f"gpu_device_info {{ {fields} "
        f"cuda_compute_capability {{ major: {major} minor: {minor} }} }} "
        'platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 patch: 0 } '
        f'device_description_str: "{chip.title}"'
    )
