"""A trace of some updates, for TensorBoard's profiler or Perfetto."""

from pathlib import Path
from typing import Any

import jax

from ecg_jax.runtime import storage

SKIPPED = 2  # calls before the trace: the first one compiles


class Profile:
    """Traces `steps` updates of any run into its folder's `profile`; none if `steps` is 0."""

    def __init__(self, folder: Path, steps: int):
        self._folder, self._left, self._calls = folder / "profile", steps, 0
        self._beside: storage.Beside | None = None

    def called(self, steps: int, metrics: Any) -> None:
        """After each call of the dispatch, with its number of updates and what it will return."""
        if self._left <= 0:
            return
        self._calls += 1
        if self._beside is not None:
            self._left -= steps
            if self._left <= 0:
                jax.block_until_ready(metrics)
                self.close()
        elif self._calls == SKIPPED:
            jax.block_until_ready(metrics)
            self._beside = storage.Beside(self._folder)
            jax.profiler.start_trace(str(self._beside.local))

    def close(self) -> None:
        if self._beside is not None:
            jax.profiler.stop_trace()
            self._beside.close()
            self._beside, self._left = None, 0
            print(f"written: {self._folder}")
