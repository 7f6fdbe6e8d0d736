"""Lobachevsky University Electrocardiography Database, every wave delineated in every lead."""

import functools
import re
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.build import EcgBuilder, features
from tfds_builders.download import Published
from tfds_builders.errors import SourceError
from tfds_builders.files import digests_of, stem_of, walk, with_suffix
from tfds_builders.jobs import Example, Job
from tfds_builders.leads import LEADS
from tfds_builders.ludb import read, waves
from tfds_builders.table import read_text

_FOLDER = "data"
_STEM = re.compile(_FOLDER + r"/([1-9]\d{0,2})")


class Builder(EcgBuilder):
    """TFDS builder of LUDB 1.0.1: 41 fixed records are `test`, one fold of five `validation`."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Optional: LUDB's folder as published, with `data/1.hea`, `data/1.dat`, the annotations
    `data/1.i` to `data/1.v6` and so on. Without it the builder downloads it from PhysioNet.
    """
    PUBLISHED: ClassVar = Published(
        title="Lobachevsky University Electrocardiography Database 1.0.1",
        homepage="https://physionet.org/content/ludb/1.0.1/",
        files="https://physionet.org/files/ludb/1.0.1/",
        wanted=lambda name: _STEM.fullmatch(stem_of(name)),
    )
    PUBLISHED_RATE: ClassVar = read.FS
    SECONDS: ClassVar = (read.SECONDS, read.SECONDS)
    SUFFIXES: ClassVar = (".hea", ".dat", *(f".{lead}" for lead in read.EXTENSIONS))
    RECORDS_PER_SHARD: ClassVar = 100  # 24 MB at 500 Hz

    def _info(self) -> tfds.core.DatasetInfo:
        samples = read.SECONDS * self.rate
        of_samples = functools.partial(
            tfds.features.Tensor,
            shape=(samples, len(LEADS)),
            encoding=tfds.features.Encoding.BYTES,
        )
        extra = {
            "segments": of_samples(dtype=np.uint8),
            "segments_mask": of_samples(dtype=np.bool_),
            "peaks": tfds.features.Tensor(shape=(len(waves.PEAKS),), dtype=np.int32),
            "age": tfds.features.Scalar(dtype=np.float32),
            "sex": tfds.features.Scalar(dtype=np.int32),
        }
        counts = {task: len(codes) for task, codes in read.CLASSES.items()}
        return self._make_info(
            features(counts, samples, extra),
            classes={task: list(codes) for task, codes in read.CLASSES.items()},
            segments=list(waves.KINDS),
            wave_counts=dict.fromkeys(waves.KINDS[1:], 0),
        )

    def _files(self, source: Path) -> list[str]:
        lists = [name for name in ("RECORDS",) if (source / name).is_file()]
        there = walk(source, _FOLDER, deep=False) if (source / _FOLDER).is_dir() else []
        return [*lists, *with_suffix(there, self.SUFFIXES)]

    def _plan(self, source: Path, files: list[str], sums: dict[str, str]) -> dict[str, list[Job]]:
        # A record of which a file is missing is found by another, or by a list.
        found = {stem_of(file) for file in files if file != "RECORDS"}
        found.update(stem_of(name) for name in sums if name.startswith(f"{_FOLDER}/"))
        if not found:
            raise SourceError(f"{source}: no data/*.hea; --source is LUDB's own folder")
        if "RECORDS" in files:
            found.update(read_text(source / "RECORDS", "the names of all records").split())
        numbers = {}
        for stem in sorted(found):
            match = _STEM.fullmatch(stem)
            if match is None or int(match[1]) not in read.FOLD:
                raise SourceError(f"{source}: {stem[:80]} is no record of LUDB")
            numbers[int(match[1])] = stem
        splits = {"train": [], "validation": [], "test": []}
        for number, stem in sorted(numbers.items()):
            digests = digests_of(sums, stem, self.SUFFIXES)
            job = functools.partial(read.example, source / stem, self.rate, digests)
            splits[read.SPLIT_OF_FOLD[read.FOLD[number]]].append(Job(str(number), job, stem))
        return splits

    def count(self, example: Example) -> dict[tuple[str, ...], int]:
        """Marked peaks by kind, in all leads."""
        peaks = example["peaks"].tolist()
        found = zip(waves.KINDS[1:], peaks, strict=True)
        return {("wave_counts", kind): count for kind, count in found if count}
