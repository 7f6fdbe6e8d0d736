"""Scores of one encoder on one task's test records: what rows and pictures are made of."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ecg_jax.runtime import files, storage

ARRAYS = ("record_id", "patient_id", "y", "score", "threshold")


class Predictions(NamedTuple):
    """Attributes:
    task, dataset, protocol, encoder: as in a row of results.json.
    rule: "corrected" or "paper".
    fraction: share of the training split's labels that were learnt from; None where none were.
    condition: of the test records, such as "6 leads"; empty as they are.
    classes: K names.
    record_id, patient_id: N strings each.
    y: bool [N, K].
    score: float32 [N, K], higher for the more likely; a column of NaN is a class without a score.
    threshold: float64 [K], chosen on validation; `score >= threshold` is positive.
    note: which choices were made.
    split: "test", or "validation" for what a report's calibration is fitted on.
    step: of the checkpoint.
    """

    task: str
    dataset: str
    protocol: str
    encoder: str
    rule: str
    fraction: float | None
    condition: str
    classes: list[str]
    record_id: np.ndarray
    patient_id: np.ndarray
    y: np.ndarray
    score: np.ndarray
    threshold: np.ndarray
    note: str = ""
    split: str = "test"
    step: int = 0

    @property
    def key(self) -> tuple:
        """What tells one set of figures of a run from another."""
        return key(self._asdict())


def key(row: dict) -> tuple:
    """The same of a row of results.json."""
    names = ("dataset", "task", "split", "protocol", "rule", "fraction", "condition", "encoder")
    return tuple(row.get(name) for name in names)


def write(predictions: Sequence[Predictions], path: Path) -> None:
    """Writes a compressed npz, whole or not at all.

    Raises:
      UserError: the file cannot be written.
    """
    header = [{k: v for k, v in p._asdict().items() if k not in ARRAYS} for p in predictions]
    arrays = {f"{i}.{name}": getattr(p, name) for i, p in enumerate(predictions) for name in ARRAYS}
    files.write_arrays(path, header, arrays)


def read(path: Path) -> list[Predictions]:
    """What `write` wrote; nothing where there is no file.

    Raises:
      UserError: the file is damaged.
    """
    if not storage.exists(path):
        return []
    with files.open_arrays(path) as (header, arrays):
        found = [
            Predictions(**fields, **{name: arrays[f"{i}.{name}"] for name in ARRAYS})
            for i, fields in enumerate(header)
        ]
        for p in found:
            _check(p)
        return found


def _check(p: Predictions) -> None:
    """Raises a ValueError where the arrays do not belong together."""
    N, K = len(p.record_id), len(p.classes)
    shapes = {"patient_id": (N,), "y": (N, K), "score": (N, K), "threshold": (K,)}
    for name, shape in shapes.items():
        if getattr(p, name).shape != shape:
            raise ValueError(
                f"{name} of {p.task} is of shape {getattr(p, name).shape}, not {shape}"
            )
