"""The training loop: it learns, goes on exactly where it stopped, and says what is wrong."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import agreement
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecg_jax import evaluate, train
from ecg_jax.errors import UserError
from ecg_jax.methods import View, build
from ecg_jax.run import config as config_lib
from ecg_jax.run import fields, workdir
from ecg_jax.run.experiment import Experiment, open_experiment
from ecg_jax.runtime import lock, parallel
from ecg_jax.runtime.arrays import digests
from ecg_jax.runtime.checkpoint import Checkpoints
from ecg_jax.runtime.stop import Stop
from ecg_jax.training import feed, optim
from ecg_jax.training.profile import Profile
from ecg_jax.training.state import init
from ecg_jax.training.step import make_dispatch

COLUMNS = (
    *("task", "dataset", "split", "protocol", "encoder", "label", "metric"),
    *("value", "ci_low", "ci_high", "n"),
)


def final(experiment: Experiment, folder):
    """The state of a run's last checkpoint."""
    _, plan, steps = feed.load(experiment)
    like = init(experiment, optim.build(experiment.config, steps), plan)
    step, state, notes = Checkpoints(folder / "checkpoints" / "last").restore(like)
    return step, state, notes


def lines(folder):
    """Of metrics.jsonl, but for how fast the run was."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "pace/step_seconds" not in row]


@pytest.fixture(scope="module", autouse=True)
def two_devices():
    """Eight simulated devices on a few cores take long to compile for, and eight residual blocks;
    two show the same."""
    make, patch = parallel.make_mesh, pytest.MonkeyPatch()
    agreement.shallow(patch.setattr)
    patch.setattr(parallel, "make_mesh", lambda devices=None: make(devices or jax.devices()[:2]))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, simulated):
    """A run of four epochs that nothing interrupted."""
    from configs import etp

    config = etp.get_config("demo")
    config.update(data_dir=str(simulated), build=False, epochs=4, batch_size=64)
    config.model.update(width=8, dim=32)
    config.evaluate.update(tasks=("super",), select="super", draws=20)
    folder = tmp_path_factory.mktemp("whole") / "run"
    train.train(config, folder)
    return config, folder


def test_a_run_leaves_its_files_and_learns(whole_run):
    config, folder = whole_run
    names = {p.name for p in folder.iterdir()}
    assert names == {
        *("config.json", "metrics.jsonl", "checkpoints", "tensorboard"),
        *("results.json", "predictions.npz", "heads.npz", "pictures.npz", "report.html"),
    }
    steps = [row for row in lines(folder) if "loss" in row]
    assert [row["step"] for row in steps] == list(range(1, len(steps) + 1))
    losses = [row["loss"] for row in steps]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    rows = json.loads((folder / "results.json").read_text())
    assert all(tuple(row)[: len(COLUMNS)] == COLUMNS for row in rows)
    assert {row["encoder"] for row in rows} == {"trained", "random"}
    assert {row["protocol"] for row in rows} == {"linear_probe", "zero_shot", "retrieval"}
    assert {row["rule"] for row in rows} == {"corrected", "paper"}
    saved = json.loads((folder / "config.json").read_text())
    assert saved["config"] == config_lib.to_json(config)
    assert {"commit", "packages", "device", "text_tower", "splits"} <= set(saved)
    expected = {
        "dtype": "float32",
        "convolution": "winograd",
        "random": "threefry2x32",
        "random_partitionable": True,
        "x64": False,
        "matmul_precision": "default",
        "seed_offset": 0,
        "dtype_promotion": "standard",
        "xla_flags": " ".join(sorted(os.environ["XLA_FLAGS"].split())),
        "libtpu_flags": "",
        "tf32_override": "",
    }
    assert saved["numerics"] == expected
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    pace = [row for row in rows if "pace/step_seconds" in row]
    assert len(pace) >= config.epochs  # and one every half minute
    for row in pace:
        assert row["pace/step_seconds"] > 0
        assert row["pace/ecg_per_second_per_chip"] > 0
        assert 0 <= row["pace/input_wait"] <= 1


def interrupt_after(monkeypatch, dispatches):
    """Sends this process SIGTERM during its nth dispatch."""
    make = train.make_dispatch

    def counting(*args):
        dispatch, made = make(*args), 0

        def run(*args):
            nonlocal made
            made += 1
            if made == dispatches:
                os.kill(os.getpid(), signal.SIGTERM)
            return dispatch(*args)

        return run

    monkeypatch.setattr(train, "make_dispatch", counting)


def test_sigterm_saves_and_the_same_command_ends_bit_for_bit_alike(
    whole_run, tmp_path, monkeypatch, capsys
):
    config, whole = whole_run
    before = signal.getsignal(signal.SIGTERM)
    for dispatches in (3, 5):
        with monkeypatch.context() as patch:
            interrupt_after(patch, dispatches)
            train.train(config, tmp_path / "run")
        assert "stopped by SIGTERM" in capsys.readouterr().out
        assert not (tmp_path / "run" / "results.json").exists()
    train.train(config, tmp_path / "run")
    signal.signal(signal.SIGTERM, before)
    experiment = open_experiment(config)
    ours, theirs = final(experiment, tmp_path / "run"), final(experiment, whole)
    assert ours[0] == theirs[0]
    assert digests(ours[1]) == digests(theirs[1])
    assert ours[2]["best"] == theirs[2]["best"]
    assert lines(tmp_path / "run") == lines(whole)
    results = [json.loads((f / "results.json").read_text()) for f in (tmp_path / "run", whole)]
    assert results[0] == results[1]


def test_sigterm_while_a_finished_program_closes_changes_nothing():
    source = """
import os, signal, threading
from ecg_jax.errors import run_main
from ecg_jax.runtime.stop import Stop

def late():
    threading.main_thread().join()  # until the interpreter closes
    os.kill(os.getpid(), signal.SIGTERM)

def main():
    Stop()
    threading.Thread(target=late).start()
    print("finished")
    return 3

run_main(main)
"""
    ended = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "finished\n", "")


def test_sigterm_before_and_after_the_updates_ends_with_the_status_of_an_unfinished_run():
    before = signal.getsignal(signal.SIGTERM)
    stop = Stop()
    with pytest.raises(SystemExit) as end:
        os.kill(os.getpid(), signal.SIGTERM)
    assert end.value.code == 75
    stop = Stop()
    stop.training = True
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.asked
    signal.signal(signal.SIGTERM, before)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(
    small, tmp_path, monkeypatch
):
    monkeypatch.setitem(fields.FIELDS, "optimizer.learning_rate", fields.Number())
    small.optimizer.learning_rate, small.optimizer.weight_decay = 1e30, 0.0
    small.optimizer.clip = 0.0
    with pytest.raises(UserError, match=r"the loss is .* is saved in") as error:
        train.train(small, tmp_path / "run")
    experiment = open_experiment(small)
    step, state, _ = final(experiment, tmp_path / "run")
    assert f"the state at step {step} is saved" in str(error.value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state.params)))


def test_a_transfer_in_the_loop_ends_the_run(whole_run, tmp_path, monkeypatch):
    config, _ = whole_run
    monkeypatch.setattr(train, "make_dispatch", lambda *_: lambda *_: jax.numpy.sin(np.ones(3)))
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        train.train(config, tmp_path / "run")


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(whole_run, tmp_path, monkeypatch):
    config, whole = whole_run
    usage = type("Usage", (), {"free": 1000})
    with monkeypatch.context() as patch:
        patch.setattr("ecg_jax.runtime.checkpoint.shutil.disk_usage", lambda folder: usage)
        with pytest.raises(UserError, match="no room for a checkpoint"):
            train.train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "results.json").exists()
    train.train(config, tmp_path / "run")
    experiment = open_experiment(config)
    assert digests(final(experiment, tmp_path / "run")[1]) == digests(final(experiment, whole)[1])


def test_a_workdir_of_another_config_is_refused(whole_run):
    config, folder = whole_run
    other = config.copy_and_resolve_references()
    other.optimizer.learning_rate = 0.5
    with pytest.raises(UserError, match=r"another run: optimizer.learning_rate is .* choose anoth"):
        train.train(other, folder)


def test_more_epochs_of_a_finished_run_in_a_new_workdir(whole_run, tmp_path, capsys):
    """Its state, figures and curves are carried over; with a rate that does not depend on the
    number of epochs it ends as a run that had them from the beginning."""
    config, whole = whole_run
    longer, seen = config.copy_and_resolve_references(), tmp_path / "longer"
    longer.optimizer.schedule = "constant"
    longer.evaluate.select = "last"
    shorter = longer.copy_and_resolve_references()
    shorter.epochs, longer.epochs = 1, 2
    train.train(shorter, tmp_path / "shorter", evaluated=False)
    before = digests(final(open_experiment(shorter), tmp_path / "shorter")[1])
    with pytest.raises(UserError, match=r"another run: epochs is 1 .*--config.extend=.*goes on"):
        train.train(longer, tmp_path / "shorter")
    for wrong, line in ((whole, "another run: evaluate.select is 'super'"), (seen, "holds no run")):
        longer.extend = str(wrong)
        with pytest.raises(UserError, match=rf"--config\.extend=.*{line}"):
            train.train(longer, seen)
    shorter.extend = longer.extend = str(tmp_path / "shorter")
    with pytest.raises(UserError, match=r"has epochs=1: raise --config\.epochs=1"):
        train.train(shorter, seen)
    assert not seen.exists()
    capsys.readouterr()
    train.train(longer, seen, evaluated=False)
    assert "goes on from" in capsys.readouterr().out
    assert digests(final(open_experiment(shorter), tmp_path / "shorter")[1]) == before
    longer.extend = ""
    train.train(longer, tmp_path / "at once", evaluated=False)
    experiment = open_experiment(longer)
    ends = [final(experiment, tmp_path / name) for name in ("longer", "at once")]
    assert ends[0][0] == ends[1][0] and digests(ends[0][1]) == digests(ends[1][1])
    assert lines(seen) == lines(tmp_path / "at once")


@pytest.mark.parametrize(
    ("name", "value", "option"),
    [
        ("dtype", "bfloat16", "--config.model.dtype=bfloat16"),
        ("convolution", "plain", "--config.model.convolution=plain"),
        ("random", "rbg", "JAX_DEFAULT_PRNG_IMPL=rbg"),
        ("x64", True, "JAX_ENABLE_X64=True"),
        ("matmul_precision", "highest", "JAX_DEFAULT_MATMUL_PRECISION=highest"),
        ("seed_offset", 3, "JAX_RANDOM_SEED_OFFSET=3"),
        ("xla_flags", "--xla_cpu_enable_fast_math=true", "XLA_FLAGS='--xla_cpu_enable_fast_math"),
    ],
)
def test_what_a_machine_would_decide_otherwise_is_refused(whole_run, tmp_path, name, value, option):
    config, folder = whole_run
    saved = json.loads((folder / "config.json").read_text())
    saved["numerics"][name] = value
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match=f"{name} was {value} there and is .*{option}"):
        workdir.claim(tmp_path, open_experiment(config))


def test_a_form_of_the_convolution_that_is_named_is_free(whole_run, tmp_path):
    config, folder = whole_run
    shutil.copy(folder / "config.json", tmp_path)
    other = config.copy_and_resolve_references()
    other.model.convolution = "plain"
    workdir.claim(tmp_path, open_experiment(other))


def test_a_type_that_auto_was_is_taken_by_its_name(whole_run, tmp_path):
    config, folder = whole_run
    other = config.copy_and_resolve_references()
    other.model.dtype = "float32"
    assert config.model.dtype == "auto"
    shutil.copy(folder / "config.json", tmp_path)
    workdir.claim(tmp_path, open_experiment(other))
    saved = json.loads((folder / "config.json").read_text())
    del saved["numerics"]  # as an earlier version wrote it, on an accelerator
    saved["device"] = "16 x TPU v5 lite"
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match="dtype was bfloat16 there and is float32 here"):
        workdir.claim(tmp_path, open_experiment(config))


def test_a_folder_in_use_is_refused(whole_run):
    _, folder = whole_run
    with lock.held(folder):
        program = "from ecg_jax.errors import run_main; from ecg_jax import evaluate"
        command = [sys.executable, "-c", f"{program}; run_main(evaluate.main)"]
        ended = subprocess.run(
            [*command, f"--workdir={folder}"], capture_output=True, text=True, check=False
        )
    assert ended.returncode == 2
    assert f"{folder} is in use by process {os.getpid()} of" in ended.stderr
    assert not (folder / "lock").exists()


def test_another_text_model_is_refused(whole_run, tmp_path):
    config, folder = whole_run
    experiment = open_experiment(config)
    other = dataclasses.replace(experiment.tower, sha256="0" * 64)
    changed = Experiment(config, experiment.mesh, experiment.method, other)
    with pytest.raises(UserError, match="the text tower's sha256 differs"):
        workdir.claim(folder, changed)
    with pytest.raises(UserError, match="was trained otherwise: the text tower's sha256"):
        evaluate.check_records(changed, folder)


def test_a_trace_of_some_updates(tmp_path):
    done = []
    profile = Profile(tmp_path, 2)
    for _ in range(6):
        profile.called(1, jnp.zeros(1))
        done.append(any((tmp_path / "profile").rglob("*.xplane.pb")))
    assert done == [False, False, False, True, True, True]


@pytest.mark.parametrize(
    ("field", "value"),
    [("shards", 0), ("seed", -1), ("evaluate.draws", 0), ("rate", 250), ("text.cased", "maybe")],
)
def test_values_that_no_run_can_have(small, field, value):
    small.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=f"--config.{field}={value}: "):
        open_experiment(small)


def test_vcg_needs_leads_in_one_unit(small):
    small.augment, small.normalize = ({"name": "vcg"},), "lead"
    with pytest.raises(UserError, match="normalize=lead gives every lead a unit of its own"):
        open_experiment(small)


def test_batches_that_do_not_fit_are_refused_before_anything_is_written(small, tmp_path):
    small.batch_size = 100
    with pytest.raises(UserError, match="100 does not divide over 32 virtual shards"):
        train.train(small, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("as_shipped")
def test_the_length_of_a_dispatch_does_not_change_the_figures(small):
    """Four updates in calls of one and of two agree; their programs round differently."""
    small.optimizer.learning_rate = 1e-4
    experiment = open_experiment(small)
    data, plan, per_epoch = feed.load(experiment)
    optimizer = optim.build(small, per_epoch)
    dispatch = make_dispatch(small, experiment.method, optimizer, per_epoch)
    ends = []
    for length in (1, 2):
        state = init(experiment, optimizer, plan)
        for _ in range(4 // length):
            state, _ = dispatch(state, data, length)
        ends.append(jax.device_get((state.params, state.method)))
    for a, b in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize("name", ["etp", "mets"])
def test_a_method_overfits_one_batch(small, name):
    small.method = name
    small.augment = ()
    small.model.soft_targets = 0.0
    method = build(small)
    rng = np.random.default_rng(0)
    view = View(
        ecg=jnp.asarray(rng.standard_normal((16, 200, 12)), jnp.float32),
        lead_mask=jnp.ones((16, 12), bool),
        text=jnp.asarray(rng.standard_normal((16, 24)), jnp.float32),
        text_id=jnp.arange(16),
        row=jnp.arange(16),
        patient=jnp.arange(16),
    )
    params, state = method.init(jax.random.key(0), view)
    small.optimizer.learning_rate = 3e-3
    optimizer = optim.build(small, 60)
    moments = optimizer.init(params)

    @jax.jit
    def step(params, state, moments, i):
        key = jax.random.key(i)
        gradient, (state, _) = jax.grad(method.loss, has_aux=True)(params, state, view, key)
        updates, moments = optimizer.update(gradient, moments, params)
        return jax.tree.map(jnp.add, params, updates), state, moments

    first = method.loss(params, state, view, jax.random.key(0))[0]
    for i in range(60):
        params, state, moments = step(params, state, moments, i)
    last = method.loss(params, state, view, jax.random.key(0))[0]
    assert first > 2.0
    assert last < 0.05
