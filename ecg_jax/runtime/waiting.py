"""What a long wait is for and how long it still is: a bar on a terminal, a line now and then in a
log. Work that is done soon says nothing, and only the first process speaks."""

import contextlib
import sys
import time
from collections.abc import Iterator

from tqdm import tqdm

from ecg_jax.runtime import hosts

SOON = 3.0  # seconds in which nothing is shown on a terminal
EVERY = 30.0  # seconds between two lines of a log


class Wait:
    """Counts to `total`. The rate leaves out what comes before the first count: compilation."""

    def __init__(self, total: int, what: str, unit: str):
        self._total, self._what, self._unit = total, what, unit
        self._began = self._said = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._bar = None
        if hosts.first() and sys.stderr.isatty():
            self._bar = tqdm(total=total, desc=what, unit=f" {unit}", delay=SOON, leave=False)

    def reached(self, count: int) -> None:
        """So many are done."""
        now = time.monotonic()
        if self._first is None:
            self._first = count, now
            if self._bar is not None:
                leave_out(self._bar, count - self._bar.n)
            return
        if self._bar is not None:
            self._bar.update(count - self._bar.n)
        elif hosts.first() and now - self._said >= EVERY:
            self._said = now
            done, since = self._first
            left = (self._total - count) * (now - since) / max(count - done, 1)
            line = f"{self._what}: {count:,} of {self._total:,} {self._unit}, {duration(left)} left"
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


@contextlib.contextmanager
def waiting(total: int, what: str, unit: str = "records") -> Iterator[Wait]:
    """A `Wait` that is closed in the end."""
    wait = Wait(total, what, unit)
    try:
        yield wait
    finally:
        wait.close()


def leave_out(bar: tqdm, count: int) -> None:
    """Counts what a bar's rate is not to know: it took as long as compilation."""
    if bar.disable:  # of all processes but the first: such a bar knows no times
        return
    bar.n += count
    bar.initial = bar.last_print_n = bar.n
    bar.unpause()
    bar.start_t = bar.last_print_t
    bar.refresh()


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
