"""CPSC2018, the China Physiological Signal Challenge's training set."""

import functools
import re
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from tfds_builders.build import EcgBuilder, features
from tfds_builders.cpsc2018 import read
from tfds_builders.download import Published
from tfds_builders.files import digests_of
from tfds_builders.jobs import Job


class Builder(EcgBuilder):
    """TFDS builder of CPSC2018; records vary in length and are labelled with nine classes."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Optional: CPSC2018 in either published layout, `A0001.mat` and so on with `REFERENCE.csv`, or
    the PhysioNet/CinC Challenge's `cpsc_2018` folder of `.hea` and `.mat` files. Without it the
    builder downloads the latter from PhysioNet.
    """
    PUBLISHED: ClassVar = Published(
        title="CPSC2018",
        homepage="https://physionet.org/content/challenge-2020/1.0.2/",
        files="https://physionet.org/files/challenge-2020/1.0.2/",
        wanted=re.compile(r"training/cpsc_2018/g\d+/A\d{4}\.(hea|mat)").fullmatch,
    )
    PUBLISHED_RATE: ClassVar = read.FS
    SECONDS: ClassVar = (3, 150)  # published are 6 to 144
    SUFFIXES: ClassVar = read.SUFFIXES
    RECORDS_PER_SHARD: ClassVar = 250  # of 16 s on average: 48 MB at 500 Hz

    def _info(self) -> tfds.core.DatasetInfo:
        return self._make_info(
            features({"cpsc": len(read.CLASSES)}, None),
            classes={"cpsc": list(read.CLASSES)},
            descriptions=read.DESCRIPTIONS,
            split_seed=read.SPLIT_SEED,
        )

    def _files(self, source: Path) -> list[str]:
        return read.find_files(source)

    def _plan(self, source: Path, files: list[str], sums: dict[str, str]) -> dict[str, list[Job]]:
        splits = {"train": [], "validation": [], "test": []}
        for name, record in sorted(read.find_records(source, files, sums).items()):
            stem = record.stem.relative_to(source).as_posix()
            digests = digests_of(sums, stem, self.SUFFIXES)
            splits[read.split_of(read.fold_of(name))].append(
                Job(name, functools.partial(read.example, record, self.rate, digests), stem)
            )
        return splits
