"""MIT-BIH Arrhythmia Database, cut into windows of ten seconds."""

import functools
import re
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.build import EcgBuilder, features
from tfds_builders.download import Published
from tfds_builders.errors import SourceError
from tfds_builders.files import digests_of, stem_of, walk
from tfds_builders.jobs import Example, Job
from tfds_builders.mit_bih import read
from tfds_builders.table import read_text

# Inter-patient division of de Chazal et al. 2004 (doi:10.1109/TBME.2004.827359). DS1 is divided
# further: four records with beats of classes N, S, V and F are kept for validation, and 201,
# whose subject is that of DS2's 202, is set apart.
SPLITS = {
    "train": (101, 106, 108, 109, 112, 115, 116, 118, 119, 122, 203, 207, 208, 209, 215, 223, 230),
    "validation": (114, 124, 205, 220),
    "test": (
        *(100, 103, 105, 111, 113, 117, 121, 123, 200, 202, 210),
        *(212, 213, 214, 219, 221, 222, 228, 231, 232, 233, 234),
    ),
    "paced": (102, 104, 107, 217),
    "ds1_subject_of_202": (201,),
}
_FOLD = {"train": 1, "validation": 1, "test": 2, "paced": 0, "ds1_subject_of_202": 1}
_SAME_SUBJECT = {"202": "201"}  # 202.hea: "taken from the same analog tape as record 201"

_FILE = re.compile(r"\d{3}\.(hea|dat|atr)", re.IGNORECASE)

_AAMI_DESCRIPTIONS = {
    "N": "normal or bundle branch block beat",
    "S": "supraventricular ectopic beat",
    "V": "ventricular ectopic beat",
    "F": "fusion of ventricular and normal beat",
    "Q": "paced or unclassifiable beat",
}


class Builder(EcgBuilder):
    """TFDS builder of the 48 records of MIT-BIH 1.0.0."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Optional: MIT-BIH's folder as published, with `100.hea`, `100.dat`, `100.atr` and so on.
    Without it the builder downloads it from PhysioNet.
    """
    PUBLISHED: ClassVar = Published(
        title="MIT-BIH Arrhythmia Database 1.0.0",
        homepage="https://physionet.org/content/mitdb/1.0.0/",
        files="https://physionet.org/files/mitdb/1.0.0/",
        wanted=re.compile(r"\d{3}\.(hea|dat|atr)").fullmatch,
    )
    PUBLISHED_RATE: ClassVar = read.FS
    SECONDS: ClassVar = (read.SECONDS, 1806)  # published are 1,805.6
    SUFFIXES: ClassVar = (".hea", ".dat", ".atr")
    RECORDS_PER_SHARD: ClassVar = 3  # of 181 windows: 65 MB at 500 Hz

    def _info(self) -> tfds.core.DatasetInfo:
        classes = {"aami": list(read.AAMI_CLASSES), "rhythm": list(read.RHYTHMS)}
        extra = {
            "beat_sample": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "beat_symbol": tfds.features.Tensor(shape=(None,), dtype=np.uint8),
        }
        counts = {task: len(codes) for task, codes in classes.items()}
        return self._make_info(
            features(counts, None, extra),
            classes=classes,
            descriptions=read.RHYTHMS | _AAMI_DESCRIPTIONS,
            beat_symbols=list(read.BEAT_SYMBOLS),
            beat_counts=dict.fromkeys(read.BEAT_SYMBOLS, 0),
        )

    def _files(self, source: Path) -> list[str]:
        """Those of the folder itself; folders in it hold variants of some records."""
        return [
            file
            for file in walk(source, deep=False)
            if file == "RECORDS" or file.endswith(".hea") or _FILE.fullmatch(file)
        ]

    def _plan(self, source: Path, files: list[str], sums: dict[str, str]) -> dict[str, list[Job]]:
        # A record of which a file is missing is found by another, or by a list.
        found = {stem_of(file) for file in files if file != "RECORDS"}
        if not found:
            raise SourceError(f"{source}: no *.hea; --source is MIT-BIH's own folder")
        if "RECORDS" in files:
            found.update(read_text(source / "RECORDS", "the names of all records").split())
        found.update(stem_of(file) for file in sums if _FILE.fullmatch(file))
        known = {str(record) for records in SPLITS.values() for record in records}
        if unknown := sorted(found - known):
            raise SourceError(f"{source}: {', '.join(unknown[:10])} are no records of MIT-BIH")
        return {
            split: [
                self._job(source / str(record), split, sums)
                for record in records
                if str(record) in found
            ]
            for split, records in SPLITS.items()
        }

    def _job(self, stem: Path, split: str, sha256: dict[str, str]) -> Job:
        patient_id = _SAME_SUBJECT.get(stem.name, stem.name)
        digests = digests_of(sha256, stem.name, self.SUFFIXES)
        return Job(
            stem.name,
            functools.partial(read.examples, stem, patient_id, _FOLD[split], self.rate, digests),
            stem.name,
        )

    def count(self, example: Example) -> dict[tuple[str, ...], int]:
        """Beats by symbol; every annotated beat lies in one window."""
        symbols = Counter(example["beat_symbol"].tolist())
        return {("beat_counts", read.BEAT_SYMBOLS[i]): count for i, count in symbols.items()}
