"""The training set of the PhysioNet/Computing in Cardiology Challenge 2021."""

import collections
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.build import EcgBuilder, features
from tfds_builders.cinc2021 import classes, read
from tfds_builders.download import Published
from tfds_builders.files import digests_of
from tfds_builders.jobs import Job


class Builder(EcgBuilder):
    """TFDS builder of the Challenge's databases; records vary in length, and some in leads."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Optional: the Challenge's folder as published, with `training/` and its databases' folders in
    it. Without it the builder downloads what it needs from PhysioNet.
    """
    PUBLISHED: ClassVar = Published(
        title="PhysioNet/CinC Challenge 2021, 1.0.3",
        homepage="https://physionet.org/content/challenge-2021/1.0.3/",
        files="https://physionet.org/files/challenge-2021/1.0.3/",
        wanted=re.compile(r"training/[\w-]+/g\d+/[A-Z]+\d+\.(hea|mat)").fullmatch,
    )
    PUBLISHED_RATE: ClassVar = 500
    SECONDS: ClassVar = (3, 1900)  # published are 5 s to half an hour
    SUFFIXES: ClassVar = read.SUFFIXES
    RECORDS_PER_SHARD: ClassVar = 500

    databases: tuple[str, ...] = read.USUAL

    def _info(self) -> tfds.core.DatasetInfo:
        extra = {
            "snomed": tfds.features.Text(),
            "database": tfds.features.Text(),
            "age": tfds.features.Scalar(dtype=np.float32),
            "sex": tfds.features.Scalar(dtype=np.int32),
        }
        return self._make_info(
            features({"challenge": len(classes.CLASSES)}, None, extra),
            classes={"challenge": list(classes.CLASSES)},
            descriptions=classes.DESCRIPTIONS,
            split_seed=read.SPLIT_SEED,
            databases={},
        )

    def _wanted(self, source: Path | None) -> Callable[[str], object]:
        above = f"{read.TRAINING}/" if source is None or read.root(source) else ""
        folders = tuple(f"{above}{name}/" for name in self.databases)
        return lambda name: name.startswith(folders) and name.endswith(self.SUFFIXES)

    def _files(self, source: Path) -> list[str]:
        return read.find_files(source, self.databases)

    def _plan(self, source: Path, files: list[str], sums: dict[str, str]) -> dict[str, list[Job]]:
        wanted = self._wanted(source)
        found = read.find_records(source, files, [name for name in sums if wanted(name)])
        counts = collections.Counter(record.database for record in found)
        self.info.metadata.update(databases=dict(sorted(counts.items())))
        splits = {"train": [], "validation": [], "test": []}
        for record in found:
            digests = digests_of(sums, record.stem, self.SUFFIXES)
            make = functools.partial(read.example, source, record, self.rate, digests)
            splits[record.split].append(Job(record.name, make, record.stem))
        return splits
