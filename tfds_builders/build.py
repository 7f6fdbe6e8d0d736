"""What the builders share: the record schema, reading in several threads, shards in order.

`ShardBasedBuilder` rather than `GeneratorBasedBuilder`: the latter keeps up to 1 GB of examples
in memory to sort them by hashed key, while here a shard's records at most are held.
"""

import abc
import contextlib
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.checks import examine
from tfds_builders.download import Published, fetch
from tfds_builders.errors import SourceError
from tfds_builders.files import SUMS, fingerprint, load_sha256, stem_of, with_suffix
from tfds_builders.jobs import Example, Job, read_all, readers
from tfds_builders.leads import LEADS
from tfds_builders.progress import progress


class BadRecordsError(ValueError):
    """Some records can't be used; `bad` is {record id: reason}."""

    def __init__(self, bad: Mapping[str, str], total: int):
        super().__init__(f"{len(bad)} of {total} records can't be used")
        self.bad = dict(bad)
        self.total = total

    def __str__(self) -> str:
        lines = (f"\n  record {key}: {reason}" for key, reason in self.bad.items())
        return super().__str__() + "".join(lines)


@dataclasses.dataclass
class RateConfig(tfds.core.BuilderConfig):
    rate: int = 500


RATE_CONFIGS = [
    RateConfig(name=f"rate{rate}", description=f"Signals at {rate} Hz.", rate=rate)
    for rate in (500, 100)
]


# Of the prepared records' form. `ecg_jax.data.records` reads this major version and no other.
VERSION = tfds.core.Version("2.1.0")
RELEASE_NOTES = {
    "2.1.0": "When PTB-XL's records were made.",
    "2.0.0": "Signals as bytes; the metadata say whether they are published or resampled.",
    "1.0.0": "Initial release.",
}


def features(
    num_classes: Mapping[str, int],
    samples: int | None,
    extra: Mapping[str, tfds.features.FeatureConnector] | None = None,
) -> tfds.features.FeaturesDict:
    """The record schema; `samples` is None where records vary in length."""
    labels = {
        task: tfds.features.Tensor(shape=(count,), dtype=np.uint8)
        for task, count in num_classes.items()
    }
    return tfds.features.FeaturesDict(
        {
            # As bytes: TFDS's own encoding of integers takes fifty times as long to write, and
            # fourteen times to read.
            "ecg": tfds.features.Tensor(
                shape=(samples, len(LEADS)),
                dtype=np.int16,
                encoding=tfds.features.Encoding.BYTES,
            ),
            "lead_mask": tfds.features.Tensor(shape=(len(LEADS),), dtype=np.bool_),
            "record_id": tfds.features.Text(),
            "patient_id": tfds.features.Text(),
            "report": tfds.features.Text(),
            "fold": tfds.features.Scalar(dtype=np.int32),
            "labels": tfds.features.FeaturesDict(labels),
            **(extra or {}),
        }
    )


def multi_hot(present: Sequence[str] | set[str], classes: Sequence[str]) -> np.ndarray:
    """uint8 [len(classes)], 1 where the class is among `present`."""
    return np.array([code in present for code in classes], np.uint8)


class EcgBuilder(tfds.core.ShardBasedBuilder):
    """Reads a published folder of records in several threads and writes shards in its order.

    A subclass says what is `PUBLISHED`, which files it reads, and the jobs of every split. Whatever
    it plans, here is checked that no record's file is passed over, that recordings are what ECGs
    are, and that none is in two splits. `skip_bad` goes on without the records that can't be used;
    otherwise they raise BadRecordsError at the end. `limb_leads` False takes limb leads that
    contradict each other as they are given.
    """

    VERSION = VERSION
    RELEASE_NOTES: ClassVar = RELEASE_NOTES
    BUILDER_CONFIGS: ClassVar = RATE_CONFIGS
    PUBLISHED: ClassVar[Published]
    PUBLISHED_RATE: ClassVar[int]  # Hz
    SECONDS: ClassVar[tuple[float, float]]  # of the shortest and the longest record
    SUFFIXES: ClassVar[tuple[str, ...]]  # of the files that a record has
    RECORDS_PER_SHARD: ClassVar[int]

    skip_bad = False
    limb_leads = True

    def __init__(self, *, file_format: str | None = None, **kwargs):
        super().__init__(file_format=file_format or "array_record", **kwargs)

    @property
    def rate(self) -> int:
        return self.builder_config.rate

    @abc.abstractmethod
    def _files(self, source: Path) -> list[str]:
        """Paths, relative to `source`, of all files that this build is made of, tables included.

        Raises SourceError where the folder as a whole can't be used.
        """

    @abc.abstractmethod
    def _plan(self, source: Path, files: list[str], sums: dict[str, str]) -> dict[str, list[Job]]:
        """Jobs by split; fills in the metadata that only the source knows.

        `sums` are the digests of `SHA256SUMS.txt` by path. Raises SourceError where the folder as a
        whole can't be used.
        """

    def fingerprint(self, source: Path) -> str:
        """sha256 over the files that a build of `source` is made of; raises SourceError."""
        return fingerprint(source, self._files(source))

    def _signals(self, source_rate: int) -> dict[str, Any]:
        """Metadata: whether the signals are as published, and at which rate those are, in Hz."""
        signals = "published" if source_rate == self.rate else "resampled"
        return {"signals": signals, "source_rate": source_rate}

    def _wanted(self, source: Path | None) -> Callable[[str], object]:
        """Which published files this build reads, from `source` or, if None, from a download."""
        return self.PUBLISHED.wanted

    def _note(self, example: Example) -> None:
        """Called with every example that is written, for metadata that sum them up."""

    def _make_info(self, features: tfds.features.FeaturesDict, **metadata) -> tfds.core.DatasetInfo:
        common = {
            "rate": self.rate,
            "units": "uV",
            "leads": list(LEADS),
            "bad_records": {},
            "source": self.PUBLISHED.title,
            "limb_leads": "checked",
            "dead_leads": {},
            "files_verified": 0,
            "source_sha256": "",
            **self._signals(self.PUBLISHED_RATE),
        }
        return self.dataset_info_from_configs(
            features=features,
            homepage=self.PUBLISHED.homepage,
            metadata=tfds.core.MetadataDict(common | metadata),
        )

    def _source(self, dl_manager: tfds.download.DownloadManager) -> Path:
        """The folder given as manual_dir, or else a download (resumed where one was begun)."""
        try:
            return Path(dl_manager.manual_dir)
        except AssertionError:  # what TFDS raises where there is no such folder
            published = dataclasses.replace(self.PUBLISHED, wanted=self._wanted(None))
            return fetch(published, Path(dl_manager.download_dir) / self.name)

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager):
        source = self._source(dl_manager)
        files, sums = self._files(source), load_sha256(source)
        plan = {split: jobs for split, jobs in self._plan(source, files, sums).items() if jobs}
        planned = {job.stem: job.record_id for jobs in plan.values() for job in jobs}
        bad = (
            self._passed_over(files, planned)
            | self._absent(source, files, sums, planned)
            | self._unlisted(source, files, sums)
        )
        total = sum(map(len, plan.values())) + len(bad.keys() - planned.keys())
        run = _Run(source, total, self._note, self._examined)
        run.bad.update({planned.get(stem, stem): reason for stem, reason in bad.items()})
        if not run.total:
            raise SourceError(f"{source}: holds no records")
        self.info.metadata.update(
            limb_leads="checked" if self.limb_leads else "as given",
            files_verified=len(sums.keys() & set(files)),
            source_sha256=fingerprint(source, files),
        )
        run.progress = self._exit.enter_context(
            progress(run.total, f"{self.name}/{self.builder_config.name}")
        )
        run.executor = self._exit.enter_context(readers(run.total))
        self._run = run
        size = self.RECORDS_PER_SHARD
        return {
            split: [
                functools.partial(run.examples, split, jobs[i : i + size])
                for i in range(0, len(jobs), size)
            ]
            for split, jobs in plan.items()
        }

    def _passed_over(self, files: list[str], planned: Collection[str]) -> dict[str, str]:
        """{stem: reason} of files of records for which no job is planned."""
        stems: dict[str, list[str]] = {}
        for file in with_suffix(files, self.SUFFIXES):
            if (stem := stem_of(file)) not in planned:
                stems.setdefault(stem, []).append(file)
        return {
            stem: f"{', '.join(there)}: there, but no record of the dataset is listed so"
            for stem, there in stems.items()
        }

    def _absent(
        self, source: Path, files: list[str], sums: dict[str, str], planned: Collection[str]
    ) -> dict[str, str]:
        """{stem: reason} of files that only `SHA256SUMS.txt` knows of."""
        wanted = self._wanted(source)
        return {
            stem_of(file): f"{file}: listed in {SUMS}, but not there"
            for file in with_suffix(sums.keys() - set(files), self.SUFFIXES)
            if wanted(file) and stem_of(file) not in planned
        }

    def _unlisted(self, source: Path, files: list[str], sums: dict[str, str]) -> dict[str, str]:
        """{stem: reason} of files that `SHA256SUMS.txt`, where there is one, does not list."""
        there = with_suffix(files, self.SUFFIXES)
        unlisted = [file for file in there if file not in sums]
        if not sums or not unlisted:
            return {}
        if len(unlisted) == len(there):
            raise SourceError(
                f"{source / SUMS}: lists {len(sums)} files and none of the {len(there)} of records "
                f"that are there, such as {there[0]}: is it of another folder?"
            )
        return {stem_of(file): f"{file}: not listed in {SUMS}" for file in unlisted}

    def _examined(self, examples: list[Example]) -> list[Example]:
        return examine(examples, self.rate, self.SECONDS, limb_leads=self.limb_leads)

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        with contextlib.ExitStack() as self._exit:
            super()._download_and_prepare(dl_manager, download_config)
        run = self._run
        if run.bad and not (self.skip_bad and len(run.bad) < run.total):
            raise BadRecordsError(run.bad, run.total)
        self.info.metadata["dead_leads"] = run.dead
        if run.bad:
            self._write_without(run.bad)

    def _write_without(self, bad: dict[str, str]) -> None:
        """Lists the bad records, and drops splits that they leave empty: TFDS can't read those."""
        self.info.metadata["bad_records"] = bad
        folder = Path(self.data_dir)
        text = json.dumps(bad, indent=2, ensure_ascii=False)
        (folder / "bad_records.json").write_text(text + "\n", encoding="utf-8")
        kept = []
        for split in self.info.splits.values():
            if split.num_examples:
                kept.append(split)
                continue
            for shard in folder.glob(f"{self.name}-{split.name}.*"):
                shard.unlink()
        self.info.set_splits(tfds.core.splits.SplitDict(kept))


class _Seen(NamedTuple):
    """Where a signal was first seen, and how it was labelled."""

    split: str
    record_id: str
    labels: bytes


@dataclasses.dataclass
class _Run:
    """State of one build."""

    source: Path
    total: int
    note: Callable[[Example], None]
    examined: Callable[[list[Example]], list[Example]]
    bad: dict[str, str] = dataclasses.field(default_factory=dict)
    seen: dict[bytes, _Seen] = dataclasses.field(default_factory=dict)
    dead: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    executor: Executor | None = None
    progress: Any = None

    def examples(self, split: str, jobs: Sequence[Job]) -> Iterator[tuple[str, Example]]:
        """Yields (key, example) in the order of `jobs`; notes the bad ones."""
        for job, outcome in read_all(jobs, self.executor, self.examined):
            self.progress.update()
            if job.record_id in self.bad and not isinstance(outcome, str):
                continue
            reason = outcome if isinstance(outcome, str) else self._again(split, outcome)
            if reason:
                self.bad[job.record_id] = reason.replace(f"{self.source}{os.sep}", "")
                continue
            for example in outcome:
                if dead := example.pop("dead_leads", None):
                    self.dead[example["record_id"]] = dead
                self.note(example)
                yield example["record_id"], example

    def _again(self, split: str, examples: list[Example]) -> str:
        """Why these are not to be taken after others with equal signals; empty if they may be."""
        found = {}
        for example in examples:
            labels = b"".join(y.tobytes() for y in example["labels"].values())
            here = _Seen(split, example["record_id"], labels)
            digest = example.pop("signal_digest")
            first = self.seen.get(digest) or found.setdefault(digest, here)
            if first.split != split:
                return f"has the signal of record {first.record_id} in split {first.split}: a leak"
            if first.labels != labels:
                return f"has the signal of record {first.record_id}, and other labels"
        self.seen |= found
        return ""
