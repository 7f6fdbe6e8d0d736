"""What a run shows and keeps of itself: a progress bar, metrics.jsonl and TensorBoard."""

import json
import math
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from ecg_jax import Config
from ecg_jax.runtime import storage, waiting
from ecg_jax.runtime.files import read_lines, write_whole


class NonFiniteError(ArithmeticError):
    """A loss or a gradient is not finite."""


class Progress:
    """Metrics are taken in when a call is dispatched and read when the next one has been, so the
    device never waits for the host. Files are written by the first process only."""

    def __init__(self, folder: Path, config: Config, *, start: int, total: int):
        self._config = config
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        self._first = jax.process_index() == 0
        self._compiling: float | None = None
        if self._first:
            from tensorboardX import SummaryWriter  # a step is made without it

            self._beside = storage.Beside(folder, "metrics.jsonl")
            path = self._beside.local / "metrics.jsonl"
            _keep_until(path, start)
            self._file = path.open("a", encoding="utf-8")
            board = self._beside.local / "tensorboard"
            self._board = SummaryWriter(str(board), purge_step=start + 1)
        self._bar = tqdm(
            initial=start * config.batch_size,
            total=total * config.batch_size,
            desc=config.method,
            unit="ECG",
            unit_scale=True,
            mininterval=0.5,
            disable=not self._first,
        )

    def compiling(self) -> None:
        """Says what the first dispatch takes its time for."""
        self._compiling = time.monotonic()
        if self._first:
            self._bar.write("compiling the training step ...")

    def steps(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics [length] of the updates after `step`; reads those of the call before.

        Raises:
          NonFiniteError: one of those had a loss or gradient that is not finite.
        """
        self._read()
        self._pending = (step, metrics)

    def flush(self) -> None:
        """Reads what is pending. Raises as `steps` does."""
        self._read()

    def scores(self, step: int, scores: dict[str, float]) -> None:
        """Writes validation figures."""
        self._write(step, {f"validation/{name}": value for name, value in scores.items()})
        figures = ", ".join(f"{k} {v:.3f}" for k, v in scores.items() if k != "select")
        self._bar.write(f"step {step:,}, validation: {figures}")

    def pace(self, step: int, row: dict[str, float]) -> None:
        """Writes how fast the run is; see `pace`."""
        if row:
            self._write(step, row)

    def upload(self) -> None:
        """What is written so far is in the run's folder, also where that is in an object store."""
        if self._first:
            self._board.flush()
            self._beside.upload()

    def close(self) -> None:
        self._bar.close()
        if self._first:
            self._file.close()
            self._board.close()
            self._beside.close()

    def _read(self) -> None:
        if self._pending is None:
            return
        (step, metrics), self._pending = self._pending, None
        values = {name: np.asarray(value) for name, value in jax.device_get(metrics).items()}
        for i in range(len(values["loss"])):
            step += 1
            row = {name: float(value[i]) for name, value in values.items()}
            if not (math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"])):
                raise NonFiniteError(
                    f"the loss is {row['loss']} and the gradient's norm {row['gradient_norm']}"
                )
            if step % self._config.log_every == 0:
                self._write(step, row)
        self._bar.set_postfix(loss=f"{row['loss']:.3f}", refresh=False)
        count = len(values["loss"]) * self._config.batch_size
        if self._compiling is None:
            self._bar.update(count)
            return
        took = time.monotonic() - self._compiling
        self._compiling = None
        waiting.leave_out(self._bar, count)  # so that the rate is that of the updates
        if self._first:
            made = "the first update" if count == self._config.batch_size else "the first updates"
            self._bar.write(f"compiled, and {made} made, in {waiting.duration(took)}")

    def _write(self, step: int, row: dict[str, Any]) -> None:
        if not self._first:
            return
        self._file.write(_line({"step": step, **row}))
        self._file.flush()
        for name, value in row.items():
            self._board.add_scalar(name, value, step)


def _keep_until(path: Path, step: int) -> None:
    """Drops the lines of updates after `step`, which a resumed run makes again."""
    kept = [_line(row) for row in read_lines(path) if row["step"] <= step]
    write_whole(path, "".join(kept).encode())


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"
