"""PTB-XL, a large publicly available electrocardiography dataset."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.build import EcgBuilder, features
from tfds_builders.download import Published
from tfds_builders.errors import RecordError, SourceError
from tfds_builders.files import digests_of, verify_sha256, walk
from tfds_builders.jobs import Job
from tfds_builders.ptb_xl import read, scp

_SPLIT_OF_FOLD = {**dict.fromkeys(range(1, 9), "train"), 9: "validation", 10: "test"}


_TABLES = ("ptbxl_database.csv", "scp_statements.csv")
_FOLDER = {100: "records100", 500: "records500"}  # of the signals published at each rate, in Hz


class Builder(EcgBuilder):
    """TFDS builder of PTB-XL 1.0.3; the published folds 1-8, 9 and 10 are the splits."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Optional: PTB-XL's folder as published, with `ptbxl_database.csv`, `scp_statements.csv`
    and `records500/` or, for 100 Hz, `records100/`. Without it the builder downloads what it needs
    from PhysioNet.
    """
    PUBLISHED: ClassVar = Published(
        title="PTB-XL 1.0.3",
        homepage="https://physionet.org/content/ptb-xl/1.0.3/",
        files="https://physionet.org/files/ptb-xl/1.0.3/",
        wanted=_TABLES.__contains__,
    )
    PUBLISHED_RATE: ClassVar = 500
    SECONDS: ClassVar = (read.SECONDS, read.SECONDS)
    SUFFIXES: ClassVar = (".hea", ".dat")
    RECORDS_PER_SHARD: ClassVar = 500  # 60 MB at 500 Hz

    # "published" or "resampled" (from 500 Hz); None: what the folder has, resampled where both.
    signals: str | None = None

    def _info(self) -> tfds.core.DatasetInfo:
        extra = {
            "scp_likelihood": tfds.features.Tensor(
                shape=(scp.NUM_CLASSES["all"],), dtype=np.float32
            ),
            "age": tfds.features.Scalar(dtype=np.float32),
            "sex": tfds.features.Scalar(dtype=np.int32),
            "recorded": tfds.features.Scalar(dtype=np.float64),
        }
        return self._make_info(features(scp.NUM_CLASSES, read.SECONDS * self.rate, extra))

    def _source_rate(self, source: Path | None = None) -> int:
        """The rate in Hz of the files to read; raises SourceError where `source` lacks them."""
        if self.rate == 500:
            wanted, other = 500, 100
        elif self.signals:
            wanted, other = (100, 500) if self.signals == "published" else (500, 100)
        else:
            only_100 = source and not _has(source, 500) and _has(source, 100)
            wanted, other = (100, 500) if only_100 else (500, 100)
        if source and not _has(source, wanted) and _has(source, other):
            raise SourceError(f"{source}: {_why_not(self.rate, wanted)}")
        return wanted

    def _wanted(self, source: Path | None) -> Callable[[str], object]:
        folder = _FOLDER[self._source_rate(source)] + "/"
        return lambda name: name in _TABLES or name.startswith(folder)

    def _files(self, source: Path) -> list[str]:
        folder = _FOLDER[self._source_rate(source)]
        there = walk(source, folder) if (source / folder).is_dir() else []
        return [*(name for name in _TABLES if (source / name).is_file()), *there]

    def _plan(self, source: Path, files: list[str], sums: dict[str, str]) -> dict[str, list[Job]]:
        for name in set(_TABLES) & set(sums):
            try:
                verify_sha256(source / name, sums[name])
            except RecordError as error:
                raise SourceError(str(error)) from error
        source_rate = self._source_rate(source)
        self.info.metadata.update(self._signals(source_rate))
        rows = read.load_rows(source / "ptbxl_database.csv", source_rate)
        statements = scp.load_statements(source / "scp_statements.csv")
        self.info.metadata.update(classes=statements.classes, descriptions=statements.descriptions)
        splits = {split: [] for split in ("train", "validation", "test")}
        for row in rows:
            splits[_SPLIT_OF_FOLD[row.fold]].append(row)
        if leaked := sorted(set(read.patients_in_two_splits(splits))):
            raise SourceError(
                f"{source / 'ptbxl_database.csv'}: patients in more than one split: "
                f"{', '.join(leaked[:10])}"
            )
        return {
            split: [self._job(source, row, source_rate, statements, sums) for row in chosen]
            for split, chosen in splits.items()
        }

    def _job(
        self,
        source: Path,
        row: read.Row,
        source_rate: int,
        statements: scp.Statements,
        sums: dict[str, str],
    ) -> Job:
        rates = (source_rate, self.rate)
        digests = digests_of(sums, row.stem, self.SUFFIXES)
        return Job(
            row.ecg_id,
            functools.partial(read.example, source, row, rates, statements, digests),
            row.stem,
        )


def _has(source: Path, rate: int) -> bool:
    return (source / _FOLDER[rate]).is_dir()


def _why_not(rate: int, wanted: int) -> str:
    if wanted == 100:
        return "holds no records100/, which --signals published reads (resampled reads records500/)"
    if rate == 500:
        return "holds no records500/, which --rate 500 reads (--rate 100 can do with records100/)"
    return "holds no records500/, which --signals resampled reads (published reads records100/)"
