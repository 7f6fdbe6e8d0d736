"""`python -m ecg_jax.train` with two residual blocks for eight, which starts in less time. The
process is killed where it gets to the one of `POINTS` that the environment names, if any."""

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import agreement

from ecg_jax import evaluate, train
from ecg_jax.errors import run_main
from ecg_jax.evaluation.validator import Validator
from ecg_jax.models import resnet1d
from ecg_jax.run import workdir
from ecg_jax.runtime.checkpoint import Checkpoints
from ecg_jax.training.progress import Progress

KILL_AT = "ECG_JAX_TEST_KILL_AT"


class Point(NamedTuple):
    """The `nth` call of a function whose arguments are `which`: its end or (`before`) its start."""

    owner: Any
    name: str
    which: Callable[..., bool] = lambda *_: True
    nth: int = 1
    before: bool = False


def of(folder: str) -> Callable[..., bool]:
    return lambda self, *_: self.folder.name == folder


def to(end: str) -> Callable[..., bool]:
    """Of a file that is written, and moved to where it belongs."""
    return lambda _, path: Path(path).match(end)


# Of a run of six epochs of five steps, with a checkpoint after each.
POINTS = {
    "within an epoch": Point(Progress, "steps", nth=13),
    "last checkpoint not yet whole": Point(Path, "replace", to("last/*/index.json"), 2, True),
    "results not yet in their place": Point(Path, "replace", to("results.json"), before=True),
    "workdir claimed": Point(workdir, "claim"),
    "first step": Point(Progress, "steps"),
    "validated": Point(Validator, "__call__", nth=2),
    "best checkpoint being written": Point(Checkpoints, "save", of("best")),
    "best checkpoint written and the last not begun": Point(
        Checkpoints, "save", of("last"), 2, True
    ),
    "last checkpoint being written": Point(Checkpoints, "save", of("last"), 3),
    "trained and not evaluated": Point(evaluate, "evaluate", before=True),
}


def arm(point: Point) -> None:
    """Kills this process at a point."""
    function, calls = getattr(point.owner, point.name), itertools.count(1)

    def watched(*args, **options):
        there = point.which(*args) and next(calls) == point.nth
        if there and point.before:
            os.kill(os.getpid(), signal.SIGKILL)
        made = function(*args, **options)
        if there:
            os.kill(os.getpid(), signal.SIGKILL)
        return made

    setattr(point.owner, point.name, watched)


if __name__ == "__main__":
    resnet1d.STAGES = agreement.SHALLOW
    if name := os.environ.get(KILL_AT):
        arm(POINTS[name])
    run_main(train.main)
