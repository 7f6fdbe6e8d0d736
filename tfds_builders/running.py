"""The state of one build, whoever writes its shards: what was bad, seen, counted and done."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from tfds_builders import shards
from tfds_builders.digest import Account
from tfds_builders.jobs import Example, Job, read_all
from tfds_builders.seen import Seen, mark
from tfds_builders.shards import relative


@dataclasses.dataclass
class Run:
    """State of one build."""

    builder: Any
    source: Path
    plan: Mapping[str, Sequence[Job]]
    total: int
    bad: dict[str, str] = dataclasses.field(default_factory=dict)
    dead: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    counts: Counter[tuple[str, ...]] = dataclasses.field(default_factory=Counter)
    accounts: defaultdict[str, Account] = dataclasses.field(
        default_factory=lambda: defaultdict(Account)
    )
    stored: Counter[str] = dataclasses.field(default_factory=Counter)  # records, by split
    seen: Seen = dataclasses.field(default_factory=Seen)
    executor: Executor | None = None
    progress: Any = None

    def examples(
        self, split: str, jobs: Sequence[Job], start: int, stop: int
    ) -> Iterator[tuple[str, Example]]:
        """Yields (key, example) of the jobs from `start` on, in their order; notes the bad ones."""
        account = self.accounts[split]
        for job, outcome in read_all(jobs[start:stop], self.executor, self.builder.examined):
            self.progress.update()
            if isinstance(outcome, str):
                self.bad[job.record_id] = relative(outcome, self.source)
            elif job.record_id not in self.bad and (
                reason := self.seen.again(split, [mark(example) for example in outcome])
            ):
                self.bad[job.record_id] = reason
            if job.record_id in self.bad:
                account.bad.add(job.record_id.encode())
                continue
            account.done.add(job.record_id.encode())
            for example in outcome:
                if dead := shards.finish(example, account, self.counts, self.builder):
                    self.dead[example["record_id"]] = dead
                yield example["record_id"], example

    def known_bad(self, jobs: Sequence[Job], start: int, stop: int) -> tuple[str, ...]:
        """Those of some jobs that are bad before they are read."""
        return tuple(job.record_id for job in jobs[start:stop] if job.record_id in self.bad)

    def repeated(self, split: str, written: shards.Written) -> list[str]:
        """Jobs of a worker's shard whose signals others have had; notes them as bad."""
        again = []
        for key, marks in written.marks.items():
            if reason := self.seen.again(split, marks):
                self.bad[key] = reason
                again.append(key)
        return again

    def take_in(self, split: str, written: shards.Written, again: list[str]) -> None:
        """Adds up what a worker has found."""
        if again and not self.builder.skip_bad:
            return  # nothing will be built
        self.accounts[split] += written.account
        self.stored[split] += written.stored
        self.counts += written.counts
        self.dead |= written.dead
        self.bad |= {key: reason for key, reason in written.bad.items() if reason}
