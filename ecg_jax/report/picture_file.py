"""What a run's folder keeps of the pictures that need its encoder and its records: pictures.npz."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecg_jax.report.content import Embedding, PromptMap, Sample, Waves
from ecg_jax.runtime import files, storage

Picture = PromptMap | Embedding | Sample | Waves
_KINDS = {kind.__name__: kind for kind in (PromptMap, Embedding, Sample, Waves)}


def update(path: Path, step: int, new: Sequence[Picture]) -> None:
    """Adds pictures of the checkpoint of a step; they replace those of the same dataset and task,
    and those of other checkpoints go.

    Raises:
      UserError: the file is damaged, or cannot be written.
    """
    drawn = {(picture.dataset, picture.task) for picture in new}
    old = [picture for picture in read(path, step) if (picture.dataset, picture.task) not in drawn]
    _write(path, step, [*old, *new])


def read(path: Path, step: int | None) -> list[Picture]:
    """The pictures of the checkpoint of a step; none where there is no file.

    Raises:
      UserError: the file is damaged.
    """
    if not storage.exists(path):
        return []
    with files.open_arrays(path) as (header, arrays):
        return [
            _KINDS[kind](**fields, **{name: arrays[f"{i}.{name}"] for name in names})
            for i, (kind, fields, names) in enumerate(header["pictures"])
            if header["step"] == step
        ]


def _write(path: Path, step: int, pictures: Sequence[Picture]) -> None:
    header, arrays = [], {}
    for i, picture in enumerate(pictures):
        fields: dict[str, Any] = {
            field.name: getattr(picture, field.name) for field in dataclasses.fields(picture)
        }
        own = {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
        plain = {name: value for name, value in fields.items() if name not in own}
        header.append((type(picture).__name__, plain, list(own)))
        arrays |= {f"{i}.{name}": value for name, value in own.items()}
    files.write_arrays(path, {"step": step, "pictures": header}, arrays)
