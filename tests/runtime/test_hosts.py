"""Several processes are one run: same figures, same batches, one line for what is wrong."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import agreement
import jax
import numpy as np
import pytest

from ecg_jax import evaluate, train
from ecg_jax.errors import UserError
from ecg_jax.runtime import hosts, parallel
from launch import local

ROOT = Path(__file__).parents[2]


def start(command, *, process, processes=2, port, devices=2):
    """One of several processes, its output in a pipe."""
    flags = [f"--coordinator=127.0.0.1:{port}", f"--processes={processes}", f"--process={process}"]
    return subprocess.Popen(
        [sys.executable, *command, *flags],
        cwd=ROOT,
        env={**os.environ, **local.environment(devices, 0, process), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def both(command, commands=None):
    """Runs two processes to their ends: [(status, stdout, stderr)]."""
    port = local.free_port()
    commands = commands or [command, command]
    running = [start(c, process=i, port=port) for i, c in enumerate(commands)]
    outputs = [process.communicate(timeout=900) for process in running]
    return [(p.returncode, *output) for p, output in zip(running, outputs, strict=True)]


def training(config, folder):
    """The command that trains `config` (of `agreement.small`) in a folder."""
    return [
        "tests/shallow_train.py",
        "--config=configs/etp.py:demo",
        f"--workdir={folder}",
        f"--config.data_dir={config.data_dir}",
        "--config.build=False",
        f"--config.epochs={config.epochs}",
        f"--config.checkpoint_seconds={config.checkpoint_seconds}",
        "--config.batch_size=64",
        "--config.seconds=2.5",
        "--config.model.width=8",
        "--config.model.dim=32",
        "--config.evaluate.tasks=('super',)",
        "--config.evaluate.select=super",
        "--config.evaluate.draws=20",
    ]


def differing(ours, theirs):
    """The arrays that differ by more than 1e-5 of their largest value, or of 1."""
    assert len(ours) > 1
    pairs = {name: (np.asarray(value), np.asarray(theirs[name])) for name, value in ours.items()}
    return [
        k for k, (a, b) in pairs.items() if np.abs(a - b).max() > 1e-5 * max(1, np.abs(b).max())
    ]


@pytest.fixture(scope="module")
def two_processes(simulated, tmp_path_factory):
    """The figures of `agreement` on two processes, by the local launcher."""
    out = tmp_path_factory.mktemp("two") / "figures.npz"
    command = ["-m", "launch.local", "--processes=2", "--devices=2", "--"]
    command += [sys.executable, "tests/agreement.py", str(simulated), str(out)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *command], cwd=ROOT, env=env, check=True, timeout=900)
    figures = dict(np.load(out))
    assert figures["processes"] == 2
    return figures


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_losses_on_devices_and_processes_agree(two_processes, devices):
    assert not differing(agreement.losses(jax.devices()[:devices]), two_processes)


def pairs(two_processes, simulated, devices, network):
    """(figures on devices, figures on two processes) of every start.

    The two processes use the ring loss and keep the optimiser's state in parts.
    """
    for start, ours in agreement.on_devices(simulated, devices, network).items():
        yield ours, {name: two_processes[f"{network} {start} {name}"] for name in ours}


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_five_steps_of_a_smooth_network_agree(two_processes, simulated, devices):
    for ours, theirs in pairs(two_processes, simulated, devices, "smooth"):
        assert not differing(ours, theirs)


@pytest.mark.parametrize("method", agreement.IN_PROCESSES)
def test_two_steps_of_every_method_agree(two_processes, simulated, method):
    """Parameters, statistics, queues, banks and losses, on eight devices of one process."""
    ours = agreement.of_method(method, simulated, jax.devices())
    assert not differing(ours, {name: two_processes[f"{method} {name}"] for name in ours})


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_five_steps_agree(two_processes, simulated, devices):
    """What is continuous agrees in every start: the first step's loss and statistics.

    Rounding differs, and now and then changes the sign of a ReLU's argument, which moves a gradient
    of a network as small as this by 1e-4 or more, on some processors in half of the starts. So
    gradients and parameters must agree in one start at least; in the smooth network, in all.
    """
    disagreed = []
    for ours, theirs in pairs(two_processes, simulated, devices, "relu"):
        np.testing.assert_allclose(ours["losses"][0], theirs["losses"][0], rtol=1e-5)
        first = {k: v for k, v in ours.items() if k.startswith("first") and "batch_stats" in k}
        assert not differing(first, theirs)
        disagreed.append(differing(ours, theirs))
    assert not all(disagreed), disagreed


def test_sigterm_to_one_process_is_heard_by_all_at_the_same_step(two_processes):
    steps = two_processes["asked"]
    assert len(steps) == 2
    assert steps[0] == steps[1] > 4


def losses(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


def test_a_run_saved_on_eight_devices_goes_on_on_one(simulated, tmp_path, monkeypatch):
    """And on two processes, which `campaign.test_soak` shows."""
    config = agreement.small(simulated)
    config.checkpoint_seconds = 0.0
    agreement.shallow(monkeypatch.setattr)
    monkeypatch.setattr(evaluate, "evaluate", lambda *_: None)
    train.train(config, tmp_path / "eight")
    shutil.copytree(tmp_path / "eight", tmp_path / "one")
    shutil.rmtree(tmp_path / "one" / "checkpoints" / "last" / "15")
    mesh = parallel.make_mesh(jax.devices()[:1])
    monkeypatch.setattr(parallel, "make_mesh", lambda: mesh)
    train.train(config, tmp_path / "one")
    found, wanted = losses(tmp_path / "one"), losses(tmp_path / "eight")
    assert sorted(found) == sorted(wanted) == list(range(1, 16))
    # Another batch's loss differs by 0.05 or more.
    np.testing.assert_allclose(found[11], wanted[11], atol=1e-5)
    np.testing.assert_allclose([found[s] for s in wanted], list(wanted.values()), atol=2e-3)


def one_line(errors):
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, errors
    return lines[0]


def test_different_configurations_are_named(simulated, tmp_path):
    config = agreement.small(simulated)
    command = training(config, tmp_path / "run")
    other = [*command, "--config.optimizer.b1=0.5"]
    for status, _, errors in both(None, [command, other]):
        assert status == 2
        assert "optimizer.b1 is 0.9 on process 0 and 0.5 on 1" in one_line(errors)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("what", ["workdirs", "records"])
def test_different_workdirs_and_records_are_refused_on_both(two_processes, what):
    for line in two_processes[f"refused {what}"]:
        assert f"hosts with different {what}: " in line
        assert what == "workdirs" or "train bytes is" in line


@pytest.mark.parametrize("process", [0, 1])
def test_others_that_do_not_come_are_waited_for_so_long_and_no_longer(process, tmp_path):
    command = ["-m", "ecg_jax.train", "--config=configs/etp.py:demo", f"--workdir={tmp_path}/run"]
    waiting = start([*command, "--start_seconds=3"], process=process, port=local.free_port())
    _, errors = waiting.communicate(timeout=100)
    assert waiting.returncode == 2
    what = "not all of 2 processes came to" if process == 0 else "cannot be reached from process 1"
    assert what in one_line(errors)
    assert "within 3 s" in errors


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"coordinator": "here"}, "here: not HOST:PORT"),
        ({"coordinator": "here:70000"}, "here:70000: not HOST:PORT"),
        ({"start_seconds": 0}, "must be above zero"),
        ({"coordinator": "a:1", "processes": 2, "process": 2}, "0 <= I < N"),
        ({"coordinator": "a:1"}, "needs --processes N and --process I"),
        ({"processes": 2, "process": 0}, "need --coordinator"),
    ],
)
def test_incomplete_addresses(fields, message):
    with pytest.raises(UserError, match=message):
        hosts.start(hosts.Address(**fields), env={})


SLURM = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1"}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}


def test_clusters_are_recognised_by_their_environment(monkeypatch):
    assert hosts.cluster(SLURM) == "slurm"
    assert hosts.cluster({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}) == ""
    assert hosts.cluster({"TPU_WORKER_HOSTNAMES": "a,b"}) == "tpu"
    assert hosts.cluster({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == ""
    assert hosts.cluster({}) == ""
    with pytest.raises(UserError, match=r"install jax\[k8s\]"):
        hosts.cluster(POD)
    started = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: started.append(given))
    hosts.start(hosts.Address(processes=1), env=SLURM)
    hosts.start(hosts.Address(), env={})
    assert not started
    hosts.start(hosts.Address(start_seconds=9), env=SLURM)
    hosts.start(hosts.Address("a:1", 2, 1), env=SLURM)
    assert [s.get("process_id") for s in started] == [None, 1]


def test_alone_nothing_is_asked_of_others():
    assert hosts.share("a") == ["a"]
    assert hosts.from_first(3) == 3
    assert hosts.put_together(["a"], 1) == ["a"]
    hosts.check_same("things", {"a": 1}, "")
    with pytest.raises(UserError, match=r"^mine$"):
        hosts.together(lambda: (_ for _ in ()).throw(UserError("mine")))


def test_a_port_that_is_taken_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        command = ["-m", "ecg_jax.train", "--config=configs/etp.py:demo", f"--workdir={tmp_path}/r"]
        command += ["--start_seconds=5"]
        first = start(command, process=0, port=taken.getsockname()[1])
        _, errors = first.communicate(timeout=100)
    assert first.returncode == 2
    assert "process 0 cannot serve on port" in one_line(errors)


def test_rows_of_nothing_are_put_together(monkeypatch):
    """Such as the segments of a dataset without any."""
    monkeypatch.setattr(hosts.jax, "process_count", lambda: 2)
    monkeypatch.setattr(hosts, "_meet", lambda size: [size, size])
    found = hosts.put_together(np.zeros((2, 0, 12), bool), 3)
    assert found.shape == (3, 0, 12) and found.dtype == bool
