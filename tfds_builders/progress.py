"""Progress of a long loop: a bar on a terminal, a line now and then in a log file."""

import sys
import time
from typing import Any

from tqdm import tqdm

EVERY = 30.0  # seconds between two lines of a log


def progress(total: int, description: str, unit: str = "records") -> Any:
    """What counts to `total` by `update()`, as a context that ends the line."""
    if sys.stderr.isatty():
        return tqdm(total=total, desc=description, unit=f" {unit}", mininterval=0.5)
    return _Lines(total, description, unit)


class _Lines:
    """The part of tqdm that is used here, in whole lines on stderr."""

    def __init__(self, total: int, description: str, unit: str):
        self._total, self._description, self._unit = total, description, unit
        self._start = self._said = time.monotonic()
        self._count = 0

    def __enter__(self) -> "_Lines":
        return self

    def __exit__(self, *_) -> None:
        pass

    def update(self, count: int = 1) -> None:
        self._count += count
        now = time.monotonic()
        if now - self._said >= EVERY:
            self._said = now
            speed = self._count / (now - self._start)
            print(
                f"{self._description}: {self._count} of {self._total} {self._unit}, {speed:.0f}/s",
                file=sys.stderr,
                flush=True,
            )
