"""A trainer killed at any moment is finished by the same command, bit for bit."""

import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import agreement
import jax
import numpy as np
import pytest

from ecg_jax import evaluate
from ecg_jax.run import workdir
from ecg_jax.run.experiment import open_experiment
from ecg_jax.runtime.checkpoint import Checkpoints, digests

ROOT = Path(__file__).parent.parent
KILLS = 10


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


def start(simulated: Path, folder: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *command(simulated, folder)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    agreement.shallow(monkeypatch.setattr)


def best(folder: Path) -> tuple[int, dict[str, str]]:
    """Step and digests of a run's best checkpoint."""
    experiment = open_experiment(workdir.read(folder)[0])
    like = evaluate.frozen(*experiment.init(jax.random.key(0)))
    step, tree, _ = Checkpoints(folder / "checkpoints" / "best").restore(like)
    return step, digests(tree)


def last(folder: Path) -> dict[str, str]:
    """The digests that the last checkpoint was saved with, optimiser and step included."""
    newest = max((folder / "checkpoints" / "last").iterdir(), key=lambda p: int(p.name))
    arrays = json.loads((newest / "index.json").read_text())["arrays"]
    return {name: array["parts"][0]["sha256"] for name, array in arrays.items()}


def metrics(folder: Path) -> list[str]:
    """metrics.jsonl, but for how fast the run was."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [line for line in lines if "pace/step_seconds" not in line]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, simulated):
    """An uninterrupted run, and how long one takes once programs are compiled."""
    folder = tmp_path_factory.mktemp("kill")
    finish(start(simulated, folder / "warm"))
    began = time.monotonic()
    finish(start(simulated, folder / "whole"))
    return folder / "whole", time.monotonic() - began


@pytest.mark.parametrize("moment", np.random.default_rng(0).uniform(0.1, 0.95, KILLS).round(2))
def test_killed_and_finished(whole, tmp_path, simulated, moment):
    folder, seconds = whole
    process = start(simulated, tmp_path / "run")
    time.sleep(moment * seconds)
    process.kill()
    process.communicate()
    finish(start(simulated, tmp_path / "run"))
    assert last(tmp_path / "run") == last(folder)
    assert best(tmp_path / "run") == best(folder)
    assert metrics(tmp_path / "run") == metrics(folder)
    assert (tmp_path / "run" / "results.json").read_text() == (folder / "results.json").read_text()


def test_a_write_that_fails_stops_the_run(whole, tmp_path, simulated):
    arguments = [sys.executable, *command(simulated, tmp_path / "run")]
    run = functools.partial(
        subprocess.run,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    full = run(["bash", "-c", 'ulimit -f 100; exec "$@"', "bash", *arguments])  # files of 100 kB
    assert full.returncode == 2
    errors = [line for line in full.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "could not write a checkpoint" in errors[0]
    assert len(errors[0]) < 400
    assert not (tmp_path / "run" / "results.json").exists()
    assert run(arguments).returncode == 0
    assert last(tmp_path / "run") == last(whole[0])
