"""Delineation of simulated LUDB records: what is learned, what is refused, rows of `evaluate`."""

import json
import re
import sys

import agreement
import jax
import numpy as np
import pytest

from configs import simclr
from ecg_jax import evaluate
from ecg_jax.errors import UserError
from ecg_jax.evaluation.protocols import delineate
from ecg_jax.models import resnet1d
from ecg_jax.run import workdir
from ecg_jax.run.experiment import open_experiment
from ecg_jax.runtime import parallel
from ecg_jax.runtime.checkpoint import Checkpoints
from tfds_builders import prepare
from tfds_builders.simulated.ludb_layout import write_ludb


@pytest.fixture(scope="module", autouse=True)
def one_device():
    patch = pytest.MonkeyPatch()
    make = parallel.make_mesh
    patch.setattr(parallel, "make_mesh", lambda devices=None: make(devices or jax.devices()[:1]))
    agreement.shallow(patch.setattr)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def ludb(tmp_path_factory):
    """A data folder with six records of LUDB's form, three of them to train on."""
    folder = tmp_path_factory.mktemp("ludb")
    write_ludb(folder / "source")
    options = ["--source", str(folder / "source"), "--rate", "100", "--data_dir", str(folder)]
    assert prepare.main(["ludb", *options]) == 0
    return folder


@pytest.fixture(scope="module")
def config(ludb):
    c = simclr.get_config("rate=100")
    c.update(dataset="ludb", data_dir=str(ludb), batch_size=16, shards=16)
    c.model.update(width=8, hidden=8, dim=8, convolution="plain")
    c.evaluate.update(tasks=("rhythm",), protocols=("delineate",), draws=20, retrieval=False)
    c.evaluate.delineate.update(width=8, updates=60, looks=2, batch_size=3, learning_rate=1e-2)
    return c


@pytest.fixture(scope="module")
def experiment(config):
    return open_experiment(config)


@pytest.fixture(scope="module")
def delineator(experiment):
    return delineate.Delineator(experiment)


@pytest.fixture(scope="module")
def start(experiment):
    return experiment.init(jax.random.key(0))


def changed(a, b):
    return any(
        (np.asarray(x) != y).any() for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
    )


def test_a_free_encoder_learns_waves_and_a_frozen_one_stays(experiment, delineator, start):
    train = experiment.train
    fitted = delineator.fit(*start, train, free=True, seed=0)
    found = delineator.predict(fitted, train)
    assert found.shape == train.segments.shape and found.dtype == np.uint8
    right = (found == train.segments)[train.segments_mask]
    none = (train.segments == 0)[train.segments_mask].mean()
    assert right.mean() > (1 + none) / 2 and changed(fitted.params["encoder"], start[0])
    assert "update 60 of 60" in fitted.note or "update 30 of 60" in fitted.note
    frozen = delineator.fit(*start, train, free=False, seed=0)
    assert not changed(frozen.params["encoder"], start[0]) and not changed(frozen.state, start[1])


def test_unlabelled_samples_are_in_no_loss(experiment, delineator, start):
    """Other labels where nothing is labelled change no weight."""
    train = experiment.train.take([0, 1])
    other = train.segments.copy()
    other[~train.segments_mask] = 3
    short = experiment.config.copy_and_resolve_references()
    short.evaluate.delineate.update(updates=2, looks=1)
    once = delineate.Delineator(experiment.otherwise(short, experiment.method))
    fits = [once.fit(*start, t, free=True, seed=0) for t in (train, replaced(train, other))]
    assert not changed(fits[0].params, fits[1].params)
    other[train.segments_mask] = 3
    assert changed(
        once.fit(*start, replaced(train, other), free=True, seed=0).params, fits[0].params
    )


def replaced(split, segments):
    import dataclasses

    return dataclasses.replace(split, segments=segments)


def test_what_cannot_be_delineated(experiment, delineator, start, simulated, monkeypatch):
    other = experiment.config.copy_and_resolve_references()
    other.update(dataset="simulated", data_dir=str(simulated))
    with pytest.raises(UserError, match="simulated says of no sample which wave it is of"):
        delineate.Delineator(open_experiment(other))
    alone = experiment.otherwise(experiment.config, experiment.method._replace(stages=None))
    with pytest.raises(UserError, match="simclr's encoder sees records in parts or lead by lead"):
        delineate.Delineator(alone)

    def coarse(*arguments):
        stages, state = experiment.method.stages(*arguments)
        return stages[1:], state

    method = experiment.method._replace(stages=coarse)
    coarser = delineate.Delineator(experiment.otherwise(experiment.config, method))
    with pytest.raises(UserError, match=r"a position every 80 ms, and delineation needs one .* 40"):
        coarser.fit(*start, experiment.train, free=False, seed=0)


def test_rows_of_evaluate(experiment, start, tmp_path, monkeypatch, capsys):
    quick = experiment.config.copy_and_resolve_references()
    quick.evaluate.delineate.update(updates=2, looks=1)
    workdir.claim(tmp_path, experiment.otherwise(quick, experiment.method))
    best = Checkpoints(tmp_path / "checkpoints" / "best", keep=1)
    best.save(1, evaluate.frozen(*start), {"select": 0.5})
    best.close()
    monkeypatch.setattr(sys, "argv", ["evaluate", f"--workdir={tmp_path}", "--fractions=0.4,1"])
    evaluate.main()
    rows = json.loads((tmp_path / "results.json").read_text())
    encoders = {"trained, frozen", "trained", "random, frozen", "supervised"}
    assert {row["encoder"] for row in rows} == encoders
    assert {row["task"] for row in rows} == {"waves", "waves, lead II"}
    assert {row["fraction"] for row in rows} == {0.4, 1.0}
    better = [row for row in rows if row["metric"] == "dice_gain"]
    pairs = {(row["encoder"], row["against"]) for row in better}
    assert pairs == {("trained, frozen", "random, frozen"), ("trained", "supervised")}
    assert len(better) == 2 * 2 * 2 and all(0 < row["p"] <= row["p_holm"] <= 1 for row in better)
    shown = capsys.readouterr().out
    assert "sample F1" in shown and "boundaries, strict" in shown and "supervised" in shown
    assert re.search(r"trained (better|worse) than supervised: [+-]0\.\d+ dice, p = ", shown)
    page = (tmp_path / "report.html").read_text()
    drawn = set(re.findall(r"lead II: waves as annotated and as found", page))
    assert drawn and "Record " in page and "nothing was marked" in page and "sample F1" in page


def test_stages_are_those_of_the_features(experiment, start):
    """The coarsest, averaged, is what the encoder's features are."""
    x = np.random.default_rng(0).normal(size=(2, 1000, 12)).astype(np.float32)
    mask = np.ones((2, 12), bool)
    stages, _ = experiment.method.stages(*start, x, mask, False)
    features = experiment.method.encode(*start, x, mask).features
    assert [stage.shape[1] for stage in stages] == [250, 125]
    np.testing.assert_allclose(stages[-1].mean(axis=1), features, rtol=1e-4, atol=1e-5)
    assert len(resnet1d.STAGES[18]) == 2
