"""Reads records in a few threads, in order and some ahead; free of TFDS.

Threads and not processes: a record takes a quarter of a millisecond of Python, the rest is the
disk's, NumPy's and zlib's, which do not hold the interpreter's lock.
"""

import contextlib
import dataclasses
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from tfds_builders.errors import RecordError

Example = dict[str, Any]

_MAX_THREADS = 4  # they keep the writing thread busy
_MIN_PARALLEL = 32  # fewer records are read one after another
_AHEAD = 16  # records in memory


@dataclasses.dataclass(frozen=True)
class Job:
    """One record: `read` returns its examples or raises RecordError.

    `stem` is the path, in the source folder, that its files have but for the suffix.
    """

    record_id: str
    read: Callable[[], list[Example]]
    stem: str = ""


def read_all(
    jobs: Sequence[Job],
    executor: Executor | None,
    examined: Callable[[list[Example]], list[Example]],
) -> Iterator[tuple[Job, list[Example] | str]]:
    """Yields each job with its examined examples, or the reason why there are none, in order."""
    if executor is None:
        yield from ((job, read(job, examined)) for job in jobs)
        return
    pending = deque()
    for job in jobs:
        pending.append((job, executor.submit(read, job, examined)))
        if len(pending) > _AHEAD:
            first, future = pending.popleft()
            yield first, future.result()
    for first, future in pending:
        yield first, future.result()


def read(
    job: Job, examined: Callable[[list[Example]], list[Example]] = list
) -> list[Example] | str:
    """A record's examples, or the reason why there are none."""
    try:
        return examined(job.read())
    except (RecordError, OSError) as error:
        return str(error)


def usable_processors() -> int:
    """Those that this process may use, which may be fewer than the machine has."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


@contextlib.contextmanager
def readers(num_records: int) -> Iterator[Executor | None]:
    """As many readers as are worth it; None where the writing thread reads."""
    count = min(usable_processors(), _MAX_THREADS)
    if num_records < _MIN_PARALLEL or count == 1:
        yield None
        return
    executor = ThreadPoolExecutor(count)
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
