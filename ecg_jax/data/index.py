"""What a split holds besides its signals, in the cache: the next start takes seconds, not a pass.

The key is the digest that `prepare` put into the metadata of ids, signals, reports and labels, so
an index is of the records that it says. Whether a record is still that one is seen when it is read.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ecg_jax.errors import UserError
from ecg_jax.runtime import cache, files

FORM = 1  # of the files; those of another one are not read
TEXTS = ("record_id", "patient_id", "report")


class Scanned(NamedTuple):
    """What is read of N records besides their signals; `labels` bool [N, K] of all tasks side by
    side, segments of no sample where there are none, else as in `Records`."""

    length: np.ndarray
    signal_sha256: np.ndarray
    lead_mask: np.ndarray
    person: np.ndarray
    recorded: np.ndarray
    labels: np.ndarray
    segments: np.ndarray
    segments_mask: np.ndarray
    record_id: list[str]
    patient_id: list[str]
    report: list[str]


def key(digest: str, **of: Any) -> str:
    """The name of an index; empty where the records' digest is not known.

    Args:
      digest: of the split's records, from the metadata.
      of: what else the arrays depend on.
    """
    if not digest:
        return ""
    parts = [str(FORM), digest, *(f"{name}={value}" for name, value in sorted(of.items()))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read(name: str, N: int, K: int) -> Scanned | None:
    """None where there is none, or it is damaged or of other sizes."""
    if not name or not _path(name).is_file():
        return None
    try:
        with files.open_arrays(_path(name)) as (_, stored):
            own = (field for field in Scanned._fields if field not in TEXTS)
            found = {field: stored[field] for field in own}
            texts = {field: _texts(stored[field], stored[f"{field}_of"]) for field in TEXTS}
    except UserError:
        return None
    columns: dict[str, Any] = {**found, **texts}
    scanned = Scanned(**columns)
    sizes = [len(column) for column in scanned]
    return scanned if set(sizes) == {N} and scanned.labels.shape == (N, K) else None


def write(name: str, scanned: Scanned) -> None:
    """Keeps it; without a word where the cache can't be written."""
    if not name:
        return
    arrays = {field: column for field, column in scanned._asdict().items() if field not in TEXTS}
    for field in TEXTS:
        arrays[field], arrays[f"{field}_of"] = _packed(getattr(scanned, field))
    try:
        files.write_arrays(_path(name), {"form": FORM}, arrays)
    except UserError:
        return


def shared(texts: list[str]) -> list[str]:
    """The texts, each different one once in memory."""
    known: dict[str, str] = {}
    return [known.setdefault(text, text) for text in texts]


def _path(name: str) -> Path:
    return cache.local("index") / f"{name}.npz"


def _packed(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The different texts as bytes with a NUL after each, and which of them each of all is."""
    place: dict[str, int] = {}
    which = [place.setdefault(text, len(place)) for text in texts]
    if any("\0" in text for text in place):
        raise UserError("a record's text holds a NUL")
    data = "".join(f"{text}\0" for text in place).encode()
    return np.frombuffer(data, np.uint8), np.array(which, np.int32)


def _texts(data: np.ndarray, which: np.ndarray) -> list[str]:
    distinct = data.tobytes().decode().split("\0")
    return [distinct[i] for i in which.tolist()]
