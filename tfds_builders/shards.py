"""One shard of a dataset, read and written by itself: what a worker on another machine does.

Nothing but names and numbers is sent: a worker plans the dataset as the first machine did, and
leaves beside the shard a file that says what it has put there. A shard that is written twice, as
engines do with slow workers, is the same one.
"""

import dataclasses
import functools
import importlib
import json
import os
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import example_serializer
from tensorflow_datasets.core import writer as writer_lib

from tfds_builders.digest import Account, Sum
from tfds_builders.errors import SourceError
from tfds_builders.jobs import Example, Job, read
from tfds_builders.seen import Mark, mark


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A builder as another process makes it again: module, config, and its attributes."""

    module: str
    config: str
    data_dir: str
    attributes: tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Shard:
    """Jobs `start` to `stop` of a split, and where they go; but for those `without`."""

    split: str
    start: int
    stop: int
    path: str
    without: tuple[str, ...] = ()


@dataclasses.dataclass
class Written:
    """What a shard holds, or why some of its jobs are not in it.

    Attributes:
      account: see `digest.Account`.
      bad, dead: as in the metadata; a job that was to be left out has no reason.
      counts: sums over its records for the metadata, see `EcgBuilder.count`.
      marks: {record id of a job: its records' marks}.
      stored, size: records and bytes of the shard's file, by its own word.
    """

    account: Account
    bad: dict[str, str]
    dead: dict[str, list[str]]
    counts: Counter[tuple[str, ...]]
    marks: dict[str, list[Mark]]
    stored: int = 0
    size: int = 0

    def dumps(self) -> str:
        sums = {
            field.name: dataclasses.astuple(getattr(self.account, field.name))
            for field in dataclasses.fields(self.account)
        }
        counts = [[*key, count] for key, count in self.counts.items()]
        rest = (self.bad, self.dead, counts, self.marks, self.stored, self.size)
        return json.dumps([sums, *rest])

    @classmethod
    def loads(cls, text: str) -> "Written":
        sums, bad, dead, counts, marks, stored, size = json.loads(text)
        return cls(
            Account(**{name: Sum(*pair) for name, pair in sums.items()}),
            bad,
            dead,
            Counter({tuple(key): count for *key, count in counts}),
            {key: [Mark(*values) for values in job] for key, job in marks.items()},
            stored,
            size,
        )


def write_shard(shard: Shard, recipe: Recipe) -> None:
    """Plans the dataset, unless this process has done so, and writes one of its shards."""
    builder, plan = planned(recipe)
    write(shard, builder, plan[shard.split], set(shard.without))


@functools.lru_cache(maxsize=1)
def planned(recipe: Recipe) -> tuple[Any, Mapping[str, Sequence[Job]]]:
    """A recipe's builder, and its jobs by split."""
    builder = importlib.import_module(recipe.module).Builder(
        config=recipe.config, data_dir=recipe.data_dir, file_format="array_record"
    )
    for name, value in recipe.attributes:
        setattr(builder, name, value)
    return builder, builder.planned(builder.source)


def write(shard: Shard, builder: Any, jobs: Sequence[Job], without: set[str]) -> None:
    """Writes a shard but for the jobs `without`, and what it holds into `beside(shard)`."""
    written = Written(Account(), {}, {}, Counter(), {})
    examples = _examples(builder, jobs[shard.start : shard.stop], written, without)
    features = builder.info.features
    writer = writer_lib.ShardWriter(
        features,
        example_serializer.ExampleSerializer(features.get_serialized_info()),
        writer_lib.ExampleWriter(file_format=builder.info.file_format),
    )
    path = epath.Path(shard.path)
    with tempfile.TemporaryDirectory() as scratch:
        # array_record writes to local disks only.
        local = Path(scratch) / path.name
        writer.write(examples, epath.Path(local))
        written.stored, written.size = stored(local), local.stat().st_size
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        with local.open("rb") as source, part.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        part.replace(path)
    beside(shard).write_text(written.dumps(), encoding="utf-8")


def _examples(
    builder: Any, jobs: Sequence[Job], written: Written, without: set[str]
) -> Iterator[tuple[str, Example]]:
    root = builder.root(builder.source)
    for job in jobs:
        outcome = read(job, builder.examined)
        if isinstance(outcome, str) or job.record_id in without:
            reason = relative(outcome, root) if isinstance(outcome, str) else ""
            written.bad[job.record_id] = reason
            written.account.bad.add(job.record_id.encode())
            continue
        written.account.done.add(job.record_id.encode())
        written.marks[job.record_id] = [mark(example) for example in outcome]
        for example in outcome:
            if dead := finish(example, written.account, written.counts, builder):
                written.dead[example["record_id"]] = dead
            yield example["record_id"], example


def relative(reason: str, source: Any) -> str:
    """Why a record is bad, with its files' places in the source."""
    return reason.replace(f"{source}{os.sep}", "")


def finish(example: Example, account: Account, counts: Counter, builder: Any) -> list[str]:
    """Takes from an example what is not stored, counts it, and returns its dead leads."""
    example.pop("signal_digest")
    account.written.add(example.pop("record_sha256"))
    counts.update(builder.count(example))
    return example.pop("dead_leads", [])


def beside(shard: Shard) -> Any:
    path = epath.Path(shard.path)
    return path.with_name(f".{path.name}.json")


def collect(shard: Shard) -> Written:
    """Raises SourceError where a shard, or what was said of it, is not there or not whole."""
    path = epath.Path(shard.path)
    if not beside(shard).exists() or not path.exists():
        raise SourceError(
            f"shard {path.name} was never written: the engine has lost it, so this is no dataset"
        )
    written = Written.loads(beside(shard).read_text(encoding="utf-8"))
    if (size := path.stat().length) != written.size:
        raise SourceError(f"shard {path.name} has {size} bytes, its writer says {written.size}")
    return written


def stored(path: Path | epath.Path) -> int:
    """How many records a shard on a local disk holds by its own word."""
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(path))
    try:
        return reader.num_records()
    finally:
        reader.close()


def split_info(name: str, lengths: list[int], shards: list[Shard], template: Any) -> Any:
    """TFDS's own account of a split."""
    size = sum(epath.Path(shard.path).stat().length for shard in shards)
    return tfds.core.SplitInfo(
        name=name, shard_lengths=lengths, num_bytes=size, filename_template=template
    )
