"""A split that stays on disk: the batches of `resident`, read ahead of the step.

The same records in the same order for the same seed and step, on any number of devices and hosts.
A batch is a function of its step, so a stream's position is the step and a run that goes on needs
nothing else; every host reads only the rows of its own devices.
"""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ecg_jax.data import resident
from ecg_jax.data.records import Stored
from ecg_jax.data.resident import Batch
from ecg_jax.runtime import parallel

AHEAD = 4  # batches being read, or waiting on the devices


class Stream:
    """Batches of N records: `ecg` [N, T, 12] on disk, lead_mask bool [N, 12], row int32 [N]."""

    def __init__(
        self,
        mesh: Mesh,
        ecg: Stored | np.ndarray,
        lead_mask: np.ndarray,
        row: np.ndarray,
        *,
        shards: int,
        batch_size: int,
        seed: int,
    ):
        """Deals the records to virtual shards as `resident.put` does.

        Raises:
          UserError: the shards do not divide over the devices, the batch not over the shards, or
            the records fill no batch.
        """
        resident.check_shards(mesh, shards)
        self.steps = resident.steps_per_epoch(len(ecg), batch_size, shards)
        self._where = resident.deal(len(ecg), shards, seed)
        self._arrays = (ecg, lead_mask, row)
        self._sharding = parallel.by_record(mesh)
        self._batch_size, self._seed = batch_size, seed
        self._order = functools.lru_cache(maxsize=2)(self._draw_order)

    def rows(self, step: int) -> np.ndarray:
        """int64 [B]: the records of a global step's batch."""
        epoch, place = divmod(step, self.steps)
        per_shard = self._batch_size // len(self._where)
        places = self._order(epoch)[:, place * per_shard : (place + 1) * per_shard]
        return np.take_along_axis(self._where, places, axis=1).reshape(-1)

    def batch(self, step: int) -> Batch:
        """The batch of a global step, read and put onto the devices now."""
        rows = self.rows(step)
        return Batch(*(parallel.put_rows(a, rows, self._sharding) for a in self._arrays))

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of the steps from `start` to before `stop`, on the devices ahead of use."""
        import grain  # a resident split is drawn without it

        options = grain.ReadOptions(num_threads=AHEAD, prefetch_buffer_size=AHEAD)
        steps = grain.MapDataset.range(start, stop).map(self.batch)
        with contextlib.closing(iter(steps.to_iter_dataset(options))) as iterator:
            yield from iterator

    def _draw_order(self, epoch: int) -> np.ndarray:
        with jax.default_device(_host()):
            count = (self._where >= 0).sum(axis=1).astype(np.int32)
            return np.asarray(_order(self._seed, epoch, count, self._where.shape[1]))


_order = jax.jit(resident.order, static_argnums=(0, 3))


def _host() -> Any:
    """A CPU device, so that drawing never queues behind a step; or what there is."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        return jax.local_devices()[0]
