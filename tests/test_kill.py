"""A trainer killed at any point is finished by the same command, bit for bit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import agreement
import pytest
from shallow_train import KILL_AT, POINTS

from ecg_jax import evaluate
from ecg_jax.run import workdir
from ecg_jax.run.experiment import open_experiment
from ecg_jax.runtime.arrays import digests
from ecg_jax.runtime.checkpoint import Checkpoints
from ecg_jax.training import feed, optim
from ecg_jax.training.state import init

ROOT = Path(__file__).parent.parent
ALWAYS = 3  # of the points, the first ones; all with --every-kill


def command(simulated: Path, folder: Path) -> list[str]:
    fields = {
        "data_dir": simulated,
        "build": False,
        "epochs": 6,
        "batch_size": 64,
        "checkpoint_seconds": 0.0,
        "model.width": 8,
        "model.dim": 32,
        "model.convolution": "plain",  # the quicker one to start
        "seconds": 2.5,
        "evaluate.protocols": "('zero_shot',)",
        "evaluate.tasks": "('super',)",
        "evaluate.select": "super",
        "evaluate.draws": 20,
    }
    options = [f"--config.{name}={value}" for name, value in fields.items()]
    return [
        "tests/shallow_train.py",
        "--config=configs/etp.py:demo",
        f"--workdir={folder}",
        *options,
    ]


def run(simulated: Path, folder: Path, *before: str, **environment: str):
    """The command's end, with words `before` it."""
    return subprocess.run(
        [*before, sys.executable, *command(simulated, folder)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def finish(simulated: Path, folder: Path) -> None:
    done = run(simulated, folder)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    agreement.shallow(monkeypatch.setattr)


def restored(folder: Path, name: str) -> tuple[int, dict[str, str]]:
    """Step and digests of a run's `last` checkpoint, optimiser and all, or of its `best`."""
    experiment = open_experiment(workdir.read(folder)[0])
    _, plan, steps = feed.load(experiment)
    like = init(experiment, optim.build(experiment.config, steps), plan)
    like = like if name == "last" else evaluate.frozen(*like.evaluated())
    step, tree, _ = Checkpoints(folder / "checkpoints" / name).restore(like)
    return step, digests(tree)


def metrics(folder: Path) -> list[str]:
    """metrics.jsonl, but for how fast the run was."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [line for line in lines if "pace/step_seconds" not in line]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, simulated):
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("kill") / "whole"
    finish(simulated, folder)
    return folder


SMALL_FILES = ("bash", "-c", 'ulimit -f 100; exec "$@"', "bash")  # of 100 kB


def test_a_write_that_fails_and_kills_are_no_end(whole, tmp_path, simulated):
    """One run that meets them all, one start after the other."""
    folder = tmp_path / "run"
    full = run(simulated, folder, *SMALL_FILES)
    assert full.returncode == 2
    errors = [line for line in full.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "could not write a checkpoint" in errors[0]
    assert len(errors[0]) < 400
    for point in list(POINTS)[:ALWAYS]:
        killed = run(simulated, folder, **{KILL_AT: point})
        assert killed.returncode == -signal.SIGKILL, f"{point}: {killed.stderr[-2000:]}"
        assert not (folder / "results.json").exists()
    finish(simulated, folder)
    check_equal(folder, whole)


@pytest.mark.parametrize("point", POINTS)
def test_killed_and_finished(whole, tmp_path, simulated, point, request):
    if not request.config.getoption("--every-kill"):
        pytest.skip("without --every-kill")
    folder = tmp_path / "run"
    killed = run(simulated, folder, **{KILL_AT: point})
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert not (folder / "results.json").exists()
    finish(simulated, folder)
    check_equal(folder, whole)


def check_equal(folder: Path, whole: Path) -> None:
    for name in ("last", "best"):
        assert restored(folder, name) == restored(whole, name)
    assert metrics(folder) == metrics(whole)
    assert (folder / "results.json").read_text() == (whole / "results.json").read_text()
