"""Recordings of one's own, and a table that says what they are."""

import dataclasses
import functools
import hashlib
import math
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders import formats
from tfds_builders.build import EcgBuilder, features, multi_hot
from tfds_builders.download import Published
from tfds_builders.errors import RecordError, SourceError
from tfds_builders.files import load_sha256, stem_of, verify_sha256, walk
from tfds_builders.formats.placed import place
from tfds_builders.jobs import Job
from tfds_builders.leads import LEADS
from tfds_builders.own import table as table_lib
from tfds_builders.own.table import Row, Table
from tfds_builders.records import to_recording
from tfds_builders.survey import Survey, unlisted

TASK = "labels"
_SIGNALS = (".hea", ".dat", ".mat")  # of a WFDB record


@dataclasses.dataclass(frozen=True)
class Own:
    """What the command line says of the dataset."""

    name: str
    table: Path
    columns: str
    seed: int = 0
    least: int = 1
    stated: formats.Stated | None = None


class Builder(EcgBuilder):
    """TFDS builder of recordings in any format; `of` makes one of a dataset's own name."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "The recordings' folder, as --source."
    PUBLISHED: ClassVar = Published(
        title="recordings of one's own", homepage="", files="", wanted=lambda name: False
    )
    PUBLISHED_RATE: ClassVar = 0
    SECONDS: ClassVar = (1, 3600)
    SUFFIXES: ClassVar = ()  # other files in the folder are nobody's concern
    RECORDS_PER_SHARD: ClassVar = 250

    own: ClassVar[Own | None] = None

    @functools.cached_property
    def table(self) -> Table:
        assert self.own is not None, "made by `of`"
        said = table_lib.columns(self.own.columns)
        return table_lib.read(self.own.table, said, seed=self.own.seed, least=self.own.least)

    def _info(self) -> tfds.core.DatasetInfo:
        extra = {
            "age": tfds.features.Scalar(dtype=np.float32),
            "sex": tfds.features.Scalar(dtype=np.int32),
        }
        tasks = {TASK: len(self.table.classes)} if self.table.classes else {}
        return self._make_info(
            features(tasks, None, extra),
            classes={TASK: list(self.table.classes)} if tasks else {},
            source=f"own data, {self.own.table.name if self.own else ''}",
            signals="as recorded, resampled where the rate differs",
            notes=list(self.table.notes),
        )

    def fingerprint(self, source: Path, files: list[str] | None = None) -> str:
        """Of the files, and of what was said about them."""
        assert self.own is not None
        said = dataclasses.replace(self.own, table=Path(self.own.table.name))
        digest = hashlib.sha256(f"{super().fingerprint(source, files)} {said}".encode())
        digest.update(self.own.table.read_bytes())
        return digest.hexdigest()

    def _files(self, source: Path) -> list[str]:
        there = set(walk(source))
        found = {file for row in self.table.rows for file in _files_of(row.path, there)}
        if not found:
            raise SourceError(
                f"{source}: holds none of the table's recordings, such as {self.table.rows[0].path}"
            )
        return sorted(found)

    def _survey(self, source: Path) -> Survey:
        """With the recordings of which `SHA256SUMS.txt`, where there is one, lacks a file."""
        survey, files = super()._survey(source), self._files(source)
        missing, there = unlisted(source, files, load_sha256(source)), set(files)
        bad = {
            row.record_id: missing[file]
            for row in self.table.rows
            for file in _files_of(row.path, there)
            if file in missing
        }
        return survey._replace(bad=survey.bad | bad)

    def _plan(self, source: Path, files: list[str], sums: dict[str, str]) -> dict[str, list[Job]]:
        assert self.own is not None
        there, stems = set(files), set()
        splits: dict[str, list[Job]] = {split: [] for split in table_lib.SPLITS}
        for row in self.table.rows:
            own = _files_of(row.path, there)
            stem = stem_of(own[0]) if own else row.path
            if stem in stems and len(own) > 1:
                raise SourceError(f"{self.own.table}: two recordings of {stem}")
            stems.add(stem)
            read = functools.partial(
                _example,
                source,
                row,
                self.rate,
                self.own.stated,
                self.table.classes,
                {file: sums[file] for file in own if file in sums},
            )
            splits[row.split].append(Job(row.record_id, read, row.path))
        return splits


def of(own: Own) -> type[Builder]:
    """The builder of a dataset of one's own, under its name."""

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update(name=own.name, own=own, __module__=__name__)

    return types.new_class("Builder", (Builder,), {"skip_registration": True}, fill)


def _files_of(path: str, there: Sequence[str] | set[str]) -> list[str]:
    """The files of a recording: itself, or the header and signals of a WFDB record."""
    own = [path] if path in there else []
    stem = path
    if own and f".{path.rpartition('.')[2]}" in _SIGNALS:
        stem = stem_of(path)
    if f"{stem}.hea" in there:
        own += [f"{stem}{suffix}" for suffix in _SIGNALS if f"{stem}{suffix}" in there]
    return list(dict.fromkeys(own))


def _example(
    source: Path,
    row: Row,
    rate: int,
    stated: formats.Stated | None,
    classes: Sequence[str],
    sha256: Mapping[str, str],
) -> list[dict[str, Any]]:
    """The recording's one example; raises RecordError."""
    for file, digest in sha256.items():
        verify_sha256(source / file, digest)
    path = formats.find(source / row.path)
    numbers = path.suffix.casefold() in (*formats.TABLES, ".npy")
    found = formats.read(path, stated if numbers else None)
    placed = place(found, path)
    signal = placed.microvolts[: found.ecg_samples]
    if len(signal) < found.rate:
        raise RecordError(f"{path}: {len(signal)} samples, less than a second")
    made = to_recording(signal, LEADS, found.rate, rate, path)
    return [
        {
            "ecg": np.where(placed.lead_mask, made.ecg, 0).astype(np.int16),
            "lead_mask": placed.lead_mask,
            "record_id": row.record_id,
            "patient_id": row.patient_id,
            "report": row.report,
            "fold": 1 + table_lib.SPLITS.index(row.split),
            "labels": {TASK: multi_hot(row.labels, classes)} if classes else {},
            "age": np.float32(math.nan if row.age is None else row.age),
            "sex": np.int32(row.sex),
            "dead_leads": [lead for lead in placed.flat if lead not in placed.derived],
        }
    ]
