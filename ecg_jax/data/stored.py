"""Signals that are left on disk, and how a prepared dataset's records are read."""

import hashlib
from typing import Any

import numpy as np

from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError

COPY = "give all hosts one copy of the prepared data, and start again"


class Stored:
    """Signals left on disk, indexed as the array int16 [N, T, 12] that they are: `stored[rows]`
    reads these rows from the shards. Several threads may read at once."""

    dtype = np.dtype(np.int16)

    def __init__(self, source: Any, T: int, rows: np.ndarray, sha256: np.ndarray):
        """Rows of a TFDS data source, cut and padded to T samples; `sha256` [len(rows), 32]."""
        self._source, self._rows, self._sha256 = source, rows, sha256
        self.shape = (len(rows), T, len(LEADS))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """Raises a UserError for a record that is not what it was when the split was opened."""
        wanted = self._rows[rows]
        ecg = np.zeros((len(wanted), *self.shape[1:]), np.int16)
        for out, example in zip(ecg, read(self._source, wanted), strict=True):
            cut(example["ecg"], out)
        for signal, row, sha256 in zip(ecg, wanted, self._sha256[rows], strict=True):
            if not np.array_equal(digest(signal), sha256):
                raise UserError(
                    f"{self._source.dataset_info.data_dir}: record {row} of split "
                    f"{self._source.split!r} has changed, or differs between hosts: {COPY}"
                )
        return ecg

    def take(self, rows: np.ndarray, axis: int = 0) -> "Stored":
        """The signals at `rows`, still on disk."""
        assert axis == 0
        return Stored(self._source, self.shape[1], self._rows[rows], self._sha256[rows])


def read(source: Any, rows: np.ndarray) -> list[dict[str, Any]]:
    """Records of a TFDS data source.

    Raises:
      UserError: a shard is missing or damaged.
    """
    reason = "empty"
    try:
        return source.__getitems__(rows.tolist())
    except RuntimeError as error:  # array_record's
        reason = str(error).splitlines()[0]
    except ValueError:  # TFDS's, of a record that has no signal
        pass
    raise UserError(
        f"{source.dataset_info.data_dir}: a shard of split {source.split!r} is missing or damaged "
        f"({reason}): prepare the dataset again, with --overwrite"
    )


def cut(signal: np.ndarray, out: np.ndarray) -> None:
    """Copies what fits; the rest of `out`, if the signal is shorter, stays as it is: zeros."""
    n = min(len(signal), len(out))
    out[:n] = signal[:n]


def digest(signal: np.ndarray) -> np.ndarray:
    """SHA-256 of a signal, uint8 [32]."""
    return np.frombuffer(hashlib.sha256(signal.data).digest(), np.uint8)
