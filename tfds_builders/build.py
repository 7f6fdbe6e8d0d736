"""What the builders share: the record schema, reading in several threads, shards in order.

`ShardBasedBuilder` rather than `GeneratorBasedBuilder`: the latter keeps up to 1 GB of examples
in memory to sort them by hashed key, while here a shard's records at most are held.
"""

import abc
import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders import shards
from tfds_builders.checks import examine
from tfds_builders.digest import Sum, record_sha256
from tfds_builders.download import Published, fetch
from tfds_builders.errors import SourceError
from tfds_builders.files import fingerprint, load_sha256
from tfds_builders.jobs import Example, Job, readers
from tfds_builders.leads import LEADS
from tfds_builders.progress import progress
from tfds_builders.running import Run
from tfds_builders.seal import seal
from tfds_builders.survey import Survey, wrong_files


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

    source: Path | str | None = None  # the published folder; if None, it is downloaded
    beam: Sequence[str] | None = None  # Apache Beam's options; None: this process reads and writes
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

    def fingerprint(self, source: Path, files: list[str] | None = None) -> str:
        """sha256 over the files that a build of `source` is made of; raises SourceError."""
        return fingerprint(source, self._files(source) if files is None else files)

    def _signals(self, source_rate: int) -> dict[str, Any]:
        """Metadata: whether the signals are as published, and at which rate those are, in Hz."""
        signals = "published" if source_rate == self.rate else "resampled"
        return {"signals": signals, "source_rate": source_rate}

    def _wanted(self, source: Path | None) -> Callable[[str], object]:
        """Which published files this build reads, from `source` or, if None, from a download."""
        return self.PUBLISHED.wanted

    def count(self, example: Example) -> Mapping[tuple[str, ...], int]:
        """What a record that is written adds to numbers of the metadata, by their place there."""
        del example
        return {}

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
            "records_sha256": {},
            **self._signals(self.PUBLISHED_RATE),
        }
        return self.dataset_info_from_configs(
            features=features,
            homepage=self.PUBLISHED.homepage,
            metadata=tfds.core.MetadataDict(common | metadata),
        )

    def _source(self, dl_manager: tfds.download.DownloadManager) -> Path:
        """The folder given as source or manual_dir, or else a download (resumed where one was
        begun)."""
        if self.source:
            return self.source  # type: ignore[return-value]
        try:
            return Path(dl_manager.manual_dir)
        except AssertionError:  # what TFDS raises where there is no such folder
            published = dataclasses.replace(self.PUBLISHED, wanted=self._wanted(None))
            return fetch(published, Path(dl_manager.download_dir) / self.name)

    def _survey(self, source: Path) -> Survey:
        """Raises SourceError where the folder as a whole can't be used."""
        files, sums = self._files(source), load_sha256(source)
        plan = {split: jobs for split, jobs in self._plan(source, files, sums).items() if jobs}
        planned = {job.stem: job.record_id for jobs in plan.values() for job in jobs}
        bad = wrong_files(source, files, sums, planned, self.SUFFIXES, self._wanted(source))
        return Survey(
            source,
            plan,
            {planned.get(stem, stem): reason for stem, reason in bad.items()},
            sum(map(len, plan.values())) + len(bad.keys() - planned.keys()),
            len(sums.keys() & set(files)),
            self.fingerprint(source, files),
        )

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager):
        survey = self._survey(self._source(dl_manager))
        run = self._begin(survey)
        run.progress = self._exit.enter_context(
            progress(run.total, f"{self.name}/{self.builder_config.name}")
        )
        run.executor = self._exit.enter_context(readers(run.total))
        size = self.RECORDS_PER_SHARD
        return {
            split: [
                functools.partial(run.examples, split, jobs, i, i + size)
                for i in range(0, len(jobs), size)
            ]
            for split, jobs in survey.plan.items()
        }

    def _begin(self, survey: Survey) -> Run:
        run = self._run = Run(self, survey.source, survey.plan, survey.total)
        run.bad.update(survey.bad)
        if not run.total:
            raise SourceError(f"{survey.source}: holds no records")
        self.info.metadata.update(
            limb_leads="checked" if self.limb_leads else "as given",
            files_verified=survey.files_verified,
            source_sha256=survey.source_sha256,
        )
        return run

    def root(self, source: Path) -> Path:
        """Where the paths of `source` begin."""
        return source

    def planned(self, source: Path) -> Mapping[str, Sequence[Job]]:
        """The plan of `_survey`, the same on every machine, without a look at what it misses."""
        plan = self._plan(source, self._files(source), load_sha256(source))
        return {split: jobs for split, jobs in plan.items() if jobs}

    def _on_beam(self, dl_manager: tfds.download.DownloadManager) -> None:
        """Has every shard written by a worker, and takes them in as this process would have."""
        from tfds_builders import on_beam

        source = self._source(dl_manager)
        survey = self._survey(source)
        run = self._begin(survey)
        names = ("limb_leads", "signals", "databases")
        attributes = {name: getattr(self, name) for name in names if hasattr(self, name)}
        recipe = shards.Recipe(
            type(self).__module__,
            self.builder_config.name,
            str(self._data_dir_root),
            tuple({**attributes, "source": source}.items()),
        )
        templates, plan, size = {}, {}, self.RECORDS_PER_SHARD
        for split, jobs in survey.plan.items():
            template = self._get_filename_template(split_name=split).replace(split=split)
            starts = range(0, len(jobs), size)
            templates[split] = template
            plan[split] = [
                shards.Shard(
                    split,
                    start,
                    min(start + size, len(jobs)),
                    str(template.sharded_filepath(shard_index=i, num_shards=len(starts))),
                    run.known_bad(jobs, start, start + size),
                )
                for i, start in enumerate(starts)
            ]
        on_beam.run(recipe, [shard for of in plan.values() for shard in of], self.beam or ())
        infos = []
        for split, of in plan.items():
            lengths = [self._take_in(run, shard, survey.plan[split]) for shard in of]
            infos.append(shards.split_info(split, lengths, of, templates[split]))
        self.info.set_splits(tfds.core.splits.SplitDict(infos))

    def _take_in(self, run: Run, shard: shards.Shard, jobs: Sequence[Job]) -> int:
        """A worker's shard, written again where others have its signals; how many it holds."""
        written = shards.collect(shard)
        again = run.repeated(shard.split, written)
        if again and self.skip_bad:
            shards.write(shard, self, jobs, {*shard.without, *again})
            written = shards.collect(shard)
        shards.beside(shard).unlink()
        run.take_in(shard.split, written, again)
        return written.account.written.count

    def examined(self, examples: list[Example]) -> list[Example]:
        """See `checks.examine`; adds `record_sha256`."""
        examples = examine(examples, self.rate, self.SECONDS, limb_leads=self.limb_leads)
        for example in examples:
            example["record_sha256"] = record_sha256(example)
        return examples

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        with contextlib.ExitStack() as self._exit:
            if self.beam is None:
                super()._download_and_prepare(dl_manager, download_config)
            else:
                self._on_beam(dl_manager)
        run = self._run
        if run.bad and not (self.skip_bad and len(run.bad) < run.total):
            raise BadRecordsError(run.bad, run.total)
        self._check_whole(run)
        self.info.metadata["dead_leads"] = run.dead
        for (*above, name), count in run.counts.items():
            place = self.info.metadata
            for part in above:
                place = place.setdefault(part, {})
            place[name] = place.get(name, 0) + count
        if run.bad:
            self._write_without(run.bad)
        seal(self)

    def _check_whole(self, run: Run) -> None:
        """Raises SourceError where the shards do not hold what the source lists."""
        for split, jobs in run.plan.items():
            listed, account = Sum(), run.accounts[split]
            for job in jobs:
                listed.add(job.record_id.encode())
            if self.beam is None:
                paths = self.info.splits[split].filepaths
                run.stored[split] = sum(map(shards.stored, paths))
            account.check(split, listed, run.stored[split])
        self.info.metadata["records_sha256"] = {
            split: account.written.hex for split, account in run.accounts.items()
        }

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
