"""PTB-XL, a large publicly available electrocardiography dataset."""

import functools
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.build import EcgBuilder, features
from tfds_builders.download import Published
from tfds_builders.jobs import Job
from tfds_builders.ptb_xl import read, scp
from tfds_builders.records import RecordError, SourceError, digests_of, load_sha256, verify_sha256

_SPLIT_OF_FOLD = {**dict.fromkeys(range(1, 9), "train"), 9: "validation", 10: "test"}


def _wanted(name: str) -> bool:
    return name in ("ptbxl_database.csv", "scp_statements.csv") or name.startswith("records500/")


class Builder(EcgBuilder):
    """TFDS builder of PTB-XL 1.0.3; the published folds 1-8, 9 and 10 are the splits."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Optional: PTB-XL's folder as published, with `ptbxl_database.csv`, `scp_statements.csv`
    and `records500/`. Without it the builder downloads it from PhysioNet.
    """
    PUBLISHED: ClassVar = Published(
        title="PTB-XL 1.0.3",
        homepage="https://physionet.org/content/ptb-xl/1.0.3/",
        files="https://physionet.org/files/ptb-xl/1.0.3/",
        wanted=_wanted,
    )
    RECORDS_PER_SHARD: ClassVar = 500  # 60 MB at 500 Hz

    def _info(self) -> tfds.core.DatasetInfo:
        extra = {
            "scp_likelihood": tfds.features.Tensor(
                shape=(scp.NUM_CLASSES["all"],), dtype=np.float32
            ),
            "age": tfds.features.Scalar(dtype=np.float32),
            "sex": tfds.features.Scalar(dtype=np.int32),
        }
        return self._make_info(features(scp.NUM_CLASSES, read.SECONDS * self.rate, extra))

    def _plan(self, source: Path) -> dict[str, list[Job]]:
        sha256 = load_sha256(source)
        for name in {"ptbxl_database.csv", "scp_statements.csv"} & set(sha256):
            try:
                verify_sha256(source / name, sha256[name])
            except RecordError as error:
                raise SourceError(str(error)) from error
        rows = read.load_rows(source / "ptbxl_database.csv")
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
            split: [self._job(source, row, statements, sha256) for row in chosen]
            for split, chosen in splits.items()
        }

    def _job(
        self, source: Path, row: read.Row, statements: scp.Statements, sha256: dict[str, str]
    ) -> Job:
        digests = digests_of(sha256, row.stem, (".hea", ".dat"))
        return Job(
            row.ecg_id,
            functools.partial(read.example, source, row, self.rate, statements, digests),
        )
