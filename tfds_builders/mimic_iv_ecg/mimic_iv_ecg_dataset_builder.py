"""MIMIC-IV-ECG, 800,035 ECGs of 160,000 patients with the machine's reports."""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.archive import open_archive
from tfds_builders.build import EcgBuilder, features
from tfds_builders.download import Published
from tfds_builders.gaps import MAX_MISSING
from tfds_builders.jobs import Example, Job
from tfds_builders.leads import LEADS
from tfds_builders.mimic_iv_ecg import read, statements
from tfds_builders.mimic_iv_ecg.survey import SUFFIXES, Files, Jobs
from tfds_builders.mimic_iv_ecg.table import MEASUREMENTS, RECORDS, Table
from tfds_builders.survey import Survey

_COMMON_LINES = 50  # of those without a class, in the metadata


class Builder(EcgBuilder):
    """TFDS builder of MIMIC-IV-ECG 1.0; splits by a hash of the subject, 98, 1 and 1 %."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Optional: MIMIC-IV-ECG's folder as published, with `record_list.csv`, `machine_measurements.csv`
    and `files/`, or its zip archive. Without it the builder downloads what it needs from PhysioNet,
    file by file, which takes days.
    """
    PUBLISHED: ClassVar = Published(
        title="MIMIC-IV-ECG 1.0",
        homepage="https://physionet.org/content/mimic-iv-ecg/1.0/",
        files="https://physionet.org/files/mimic-iv-ecg/1.0/",
        wanted=re.compile(r"record_list\.csv|machine_measurements\.csv|files/.*\.(hea|dat)").match,
    )
    PUBLISHED_RATE: ClassVar = read.FS
    SECONDS: ClassVar = (read.SECONDS, read.SECONDS)
    SUFFIXES: ClassVar = SUFFIXES
    RECORDS_PER_SHARD: ClassVar = 500  # 60 MB at 500 Hz
    TAKES_ARCHIVES: ClassVar = True

    def _info(self) -> tfds.core.DatasetInfo:
        classes = read.classes()
        extra = {
            "certainty": tfds.features.Tensor(shape=(len(classes["statements"]),), dtype=np.uint8),
            "quality": tfds.features.Tensor(shape=(len(statements.flags()),), dtype=np.uint8),
            "missing_samples": tfds.features.Tensor(shape=(len(LEADS),), dtype=np.int32),
            "measurements": tfds.features.Tensor(shape=(len(MEASUREMENTS),), dtype=np.float32),
            "cart_id": tfds.features.Text(),
            "bandwidth": tfds.features.Text(),
            "filtering": tfds.features.Text(),
        }
        return self._make_info(
            features(
                {task: len(names) for task, names in classes.items()},
                read.SECONDS * self.rate,
                extra,
            ),
            classes=classes,
            descriptions=statements.classes_of("description"),
            certainty={str(level): word for level, word in statements.CERTAINTY.items()},
            quality=list(statements.flags()),
            measurements=list(MEASUREMENTS),
            split_seed=read.SPLIT_SEED,
            max_missing=MAX_MISSING,
            leads_masked_for_gaps=0,
            leads_bridged=0,
            samples_bridged=0,
            without_findings=0,
            flagged={},
        )

    def _files(self, source: Path) -> list[str]:
        raise NotImplementedError("its files are surveyed one by one")

    def _plan(self, source: Path, files: list[str], sums: dict[str, str]) -> dict[str, list[Job]]:
        raise NotImplementedError("its files are surveyed one by one")

    def root(self, source: Path):
        return open_archive(source, RECORDS) if not Path(source).is_dir() else source

    def fingerprint(self, source: Path, files: list[str] | None = None) -> str:
        del files
        root = self.root(source)
        return Files(root, Table(root)).fingerprint(root)

    def _survey(self, source: Path) -> Survey:
        root = self.root(source)
        table = Table(root)
        files = Files(root, table)
        files.verify_tables(root)
        self.info.metadata.update(
            rows_of_other_records=table.foreign,
            lines_without_class=_without_class(table),
        )
        plan = self._divided(root, table, files)
        surplus = sum(not key.isdigit() for key in files.bad)
        return Survey(
            root,
            plan,
            files.bad,
            len(table) + surplus,
            int((files.there & files.listed).sum()) + len(files.tables),
            files.fingerprint(root),
        )

    def planned(self, source: Path) -> Mapping[str, Sequence[Job]]:
        root = self.root(source)
        table = Table(root)
        return self._divided(root, table, Files(root, table, walk=False))

    def _divided(self, root, table: Table, files: Files) -> dict[str, Sequence[Job]]:
        fold = np.array([read.fold_of(int(subject)) for subject in table.subject], int)
        job = functools.partial(_job, root, table, files, self.rate)
        rows = {
            "train": fold <= read.NUM_FOLDS - 2,
            "validation": fold == read.NUM_FOLDS - 1,
            "test": fold == read.NUM_FOLDS,
        }
        return {
            split: Jobs(job, np.flatnonzero(chosen))
            for split, chosen in rows.items()
            if chosen.any()
        }

    def count(self, example: Example) -> dict[tuple[str, ...], int]:
        missing = example["missing_samples"]
        bridged = (missing > 0) & example["lead_mask"]
        found = {
            ("leads_masked_for_gaps",): int(((missing > 0) & ~example["lead_mask"]).sum()),
            ("leads_bridged",): int(bridged.sum()),
            ("samples_bridged",): int(missing[bridged].sum()),
            ("without_findings",): int(not example["report"]),
        }
        flags = statements.flags()
        return found | {("flagged", flags[k]): 1 for k in np.flatnonzero(example["quality"])}


def _job(root: Path, table: Table, files: Files, rate: int, i: int) -> Job:
    row = table.row(i)
    digests = files.digests(i, row)
    return Job(str(row.study), functools.partial(read.example, root, row, rate, digests), row.stem)


def _without_class(table: Table) -> dict[str, int]:
    """{line: count} of the commonest lines that are findings and have no class."""
    found: dict[str, int] = {}
    for line, count in zip(table.vocabulary, table.counts.tolist(), strict=True):
        report = statements.read_report([line])
        if report.text and not report.certainty:
            found[line] = found.get(line, 0) + count
    return dict(sorted(found.items(), key=lambda item: -item[1])[:_COMMON_LINES])
