"""Reads records in several processes, in order and a few ahead; free of TFDS, as `records` is."""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any

from tfds_builders.records import RecordError

Example = dict[str, Any]

# Four readers keep the writing process busy: more only cost memory, 150 MB each.
_MAX_PROCESSES = 4
_MIN_PARALLEL = 32  # fewer records are read before a second process has started


@dataclasses.dataclass(frozen=True)
class Job:
    """One record: `read` (picklable) returns its examples or raises RecordError."""

    record_id: str
    read: Callable[[], list[Example]]


def read_all(
    jobs: Sequence[Job], executor: Executor | None
) -> Iterator[tuple[Job, list[Example] | str]]:
    """Yields each job with its examples, or with the reason why there are none, in order."""
    if executor is None:
        yield from ((job, read(job)) for job in jobs)
        return
    pending = deque()
    for job in jobs:
        pending.append((job, executor.submit(read, job)))
        if len(pending) > 2 * _MAX_PROCESSES:
            first, future = pending.popleft()
            yield first, future.result()
    for first, future in pending:
        yield first, future.result()


def read(job: Job) -> list[Example] | str:
    """A record's examples, or the reason why there are none."""
    try:
        return job.read()
    except (RecordError, OSError) as error:
        return str(error)


@contextlib.contextmanager
def processes(num_records: int) -> Iterator[Executor | None]:
    """As many readers as are worth it; None where one process does."""
    if num_records < _MIN_PARALLEL or (count := min(os.cpu_count() or 1, _MAX_PROCESSES)) == 1:
        yield None
        return
    # Spawned, not forked: TFDS and its writers have threads running by now.
    executor = ProcessPoolExecutor(
        count,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=signal.signal,  # Ctrl-C is the main process's affair
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
