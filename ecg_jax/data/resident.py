"""A split that lives on the devices, and the batches drawn from it inside the jitted step.

The records are dealt once, in an order that the seed fixes, to a fixed number of virtual shards.
Every batch draws equally from each shard, and a device owns whole shards. So the batches are the
same on any number of devices that divides the number of shards, and no record crosses devices.
"""

import functools
import os
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ecg_jax.errors import UserError
from ecg_jax.runtime import parallel

SHARE = 0.8  # of a device's free memory that a split may take; the step needs the rest


class Split(NamedTuple):
    """On the devices; V virtual shards of up to n records, the first axis over the mesh.

    Attributes:
      ecg: int16 [V, n, T, 12] microvolts.
      lead_mask: bool [V, n, 12].
      row: int32 [V, n], which of the split's records it is.
      count: int32 [V], how many of the n places are records.
    """

    ecg: jax.Array
    lead_mask: jax.Array
    row: jax.Array
    count: jax.Array


class Batch(NamedTuple):
    """What a step sees: ecg int16 [B, T, 12] microvolts, lead_mask bool [B, 12], row int32 [B]."""

    ecg: jax.Array
    lead_mask: jax.Array
    row: jax.Array


def deal(N: int, shards: int, seed: int) -> np.ndarray:
    """int64 [V, n]: which record lies where, -1 in the places left over."""
    n = -(-N // shards)
    order = np.full(n * shards, -1)
    order[:N] = np.random.default_rng(seed).permutation(N)
    return order.reshape(n, shards).T


def check_shards(mesh: Mesh, shards: int) -> None:
    """Raises a UserError if the number of virtual shards does not divide over the devices."""
    devices = mesh.devices.size
    if shards % devices:
        raise UserError(
            f"{shards} virtual shards do not divide over {devices} devices: set "
            f"--config.shards to a multiple of {devices} (the batches change with it)"
        )


def check_memory(mesh: Mesh, size: int, name: str) -> None:
    """Checks that a split can be made resident, before it is read.

    Args:
      size: bytes of all of its signals.
      name: of the split, for the message.

    Raises:
      UserError: the host's memory does not hold it, or a device's does not hold its part.
    """
    part, device = size / mesh.devices.size, jax.local_devices()[0]
    held = round(part * len(jax.local_devices()))
    free = device_memory(device)
    if free is not None and part > SHARE * free:
        raise UserError(
            f"{name}: {_gb(part)} of signals for each of {mesh.devices.size} devices, and "
            f"{_gb(SHARE * free)} is the limit ({SHARE:.0%} of what is free on a "
            f"{device.device_kind}): read them from disk in every step, --config.stream=True"
        )
    if jax.process_count() > 1:  # each reads what its devices hold
        size = held
    if free is None:  # the device is the host, which holds the split as read and as dealt
        size += held
    if size > host_memory():
        raise UserError(
            f"{name}: its signals take {_gb(size)} of this machine's memory, and "
            f"{_gb(host_memory())} is free: read them from disk in every step, "
            "--config.stream=True"
        )


def device_memory(device: Any) -> int | None:
    """Free bytes on a device; None where it has no memory of its own, or does not tell."""
    stats = device.memory_stats()
    return stats["bytes_limit"] - stats["bytes_in_use"] if stats else None


def host_memory(root: Path = Path("/")) -> int:
    """Bytes that this machine, or its container, can still give (Linux), or has (elsewhere)."""
    try:
        lines = (root / "proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))
    return min([free, *_cgroup_memory(root / "sys/fs/cgroup")])


def _cgroup_memory(folder: Path) -> list[int]:
    """What a container's limit leaves, if it has one (control groups, version 2 or 1)."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most, taken = (
                (folder / name).read_text(encoding="utf-8").strip() for name in (limit, used)
            )
            stat = (folder / limit).with_name("memory.stat").read_text(encoding="utf-8").split()
        except OSError:
            continue
        # Cached files count as used, and give way.
        cached = int(dict(zip(stat[::2], stat[1::2], strict=True)).get("inactive_file", 0))
        return [] if most == "max" else [int(most) - int(taken) + cached]
    return []


def _gb(size: float) -> str:
    return f"{size / 1e9:,.3g} GB"


def put(
    mesh: Mesh,
    ecg: np.ndarray,
    lead_mask: np.ndarray,
    row: np.ndarray,
    *,
    shards: int,
    seed: int,
) -> Split:
    """Puts N records ([N, T, 12], [N, 12], [N]) onto the mesh.

    Raises:
      UserError: the number of virtual shards does not divide over the devices.
    """
    check_shards(mesh, shards)
    where = deal(len(ecg), shards, seed)
    sharding, rows = parallel.by_record(mesh), np.maximum(where, 0)
    place = functools.partial(parallel.put_rows, rows=rows, sharding=sharding)
    count = (where >= 0).sum(axis=1).astype(np.int32)
    return Split(place(ecg), place(lead_mask), place(row), parallel.put(count, sharding))


def steps_per_epoch(N: int, batch_size: int, shards: int) -> int:
    """Whole batches in one pass over N records; what is left over waits for another epoch.

    Raises:
      UserError: the batch does not divide over the virtual shards, or N records fill no batch.
    """
    if batch_size % shards:
        raise UserError(
            f"a batch of {batch_size} does not divide over {shards} virtual shards: set "
            f"--config.batch_size to a multiple of {shards}, or --config.shards to a divisor"
        )
    steps = (N // shards) // (batch_size // shards)
    if steps == 0:
        raise UserError(
            f"{N} records do not fill one batch of {batch_size}: set --config.batch_size lower"
        )
    return steps


def order(seed: int, epoch: jax.Array | int, count: jax.Array, n: int) -> jax.Array:
    """int32 [V, n]: the order in which an epoch draws the places of every shard.

    The first `count[v]` of row v are a permutation of the shard's records. The same on every
    backend: the bits are threefry's and the sort is stable.

    Args:
      count: int32 [V], how many of a shard's n places are records.
    """
    key = jax.random.fold_in(jax.random.key(seed), epoch)
    rank = jax.random.uniform(key, (len(count), n))
    rank = jnp.where(jnp.arange(n) < count[:, None], rank, jnp.inf)
    return jnp.argsort(rank, axis=1)


def draw(split: Split, seed: int, step: jax.Array, steps: int, batch_size: int) -> Batch:
    """The batch of a global step: a new permutation of every shard in every epoch.

    Args:
      seed: of the run.
      step: int32 scalar, counted from the run's start.
      steps: per epoch, from `steps_per_epoch`.
      batch_size: of the global batch.
    """
    V, n = split.row.shape
    per_shard = batch_size // V
    epoch, place = step // steps, step % steps
    places = order(seed, epoch, split.count, n)
    rows = jax.lax.dynamic_slice_in_dim(places, place * per_shard, per_shard, axis=1)

    def gather(array: jax.Array) -> jax.Array:
        return jax.vmap(lambda a, i: a[i])(array, rows).reshape(batch_size, *array.shape[2:])

    return Batch(gather(split.ecg), gather(split.lead_mask), gather(split.row))
