"""Fine-tuning: it learns, keeps what validation chooses, and does not depend on the devices."""

import importlib
import types
from typing import Any

import agreement
import jax
import numpy as np
import pytest

from configs import common, etp
from ecg_jax.data.leads import LEADS
from ecg_jax.data.records import Records
from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures import metrics
from ecg_jax.evaluation.protocols import finetune
from ecg_jax.methods import View, build
from ecg_jax.run import config as config_lib
from ecg_jax.run.experiment import Experiment
from ecg_jax.runtime import parallel

T, CLASSES = 200, ["SLOW", "FAST", "TALL"]


def records(N, seed=0, y=None):
    """Sines: class SLOW and FAST by their frequency, TALL by its amplitude; y bool [N, 3]."""
    rng = np.random.default_rng(seed)
    y = rng.random((N, 3)) < (0.5, 0.3, 0.4) if y is None else y
    t = np.arange(T) / 100
    phase = rng.uniform(0, 2 * np.pi, (N, 3, 1))
    waves = np.sin(2 * np.pi * np.array([2.0, 9.0, 5.0])[:, None] * t + phase)
    size = np.stack([y[:, 0], y[:, 1], 0.5 + 2 * y[:, 2]], axis=1)
    signal = (size[:, :, None] * waves).sum(axis=1)[:, :, None] + rng.normal(0, 0.3, (N, T, 12))
    names = np.array([f"{seed}-{i}" for i in range(N)])
    return Records(
        dataset="planted",
        split="train",
        rate=100,
        ecg=np.round(500 * signal).astype(np.int16),
        length=np.full(N, T, np.int32),
        signal_sha256=np.zeros((N, 32), np.uint8),
        lead_mask=np.ones((N, len(LEADS)), bool),
        record_id=names,
        patient_id=names,
        report=[""] * N,
        person=np.full((N, 2), np.nan, np.float32),
        labels={"planted": y},
        classes={"planted": CLASSES},
    )


OPTIONS = {"epochs": 3, "min_updates": 3, "batch_size": 32, "learning_rates": (3e-3,)}


def experiment(devices=1):
    config = etp.get_config("demo")
    config.update(seconds=T / 100, augment=())
    config.evaluate.finetune.augment = config.evaluate.supervised.augment = ()
    config.model.update(width=8, dim=16, convolution="plain")
    mesh = parallel.make_mesh(jax.devices()[:devices])
    tower: Any = types.SimpleNamespace(width=8)
    return Experiment(config, mesh, build(config), tower)


@pytest.fixture(scope="module")
def opened():
    return experiment()


@pytest.fixture(scope="module")
def tuner(opened):
    """One for all tests, as compiling takes most of their time; `fit` sets its options."""
    return finetune.Finetuner(opened, "supervised")


def fit(tuner, train, validation, *, start=None, seed=0, task="planted", **options):
    opened = tuner._experiment
    tuner._config.update({"head": "prevalence", "max_updates": 10_000, **OPTIONS, **options})
    params, state = start or opened.init(jax.random.key(0))
    return tuner.fit(params, state, train, validation, task, seed=seed)


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))]


@pytest.fixture(scope="module")
def trained(opened, tuner):
    """150 updates on 32 records whose labels are random, and the start."""
    rng = np.random.default_rng(5)
    few = records(32)
    few.labels["planted"][:] = rng.random((32, 3)) < 0.5
    start = opened.init(jax.random.key(0))
    return few, start, fit(tuner, few, few, start=start, epochs=6, min_updates=150)


def test_it_overfits_a_small_batch(opened, trained):
    few, start, tuned = trained
    assert tuned.best.auroc == 1.0
    assert tuned.path[-1].loss < 0.1 < 0.5 < tuned.path[0].loss
    assert [(row.learning_rate, row.epoch) for row in tuned.path] == [
        (3e-3, e + 1) for e in range(6)
    ]
    assert tuned.note.startswith("learning rate 0.003, epoch ")
    score = finetune.predict(opened, tuned, few)
    assert score.dtype == np.float32
    np.testing.assert_array_equal(metrics.auroc(few.labels["planted"], score), 1)
    for before, after in zip(leaves(start[1]), leaves(tuned.state), strict=True):
        assert np.abs(after - before).max() > 0.01  # BatchNorm's statistics
    moved = zip(leaves(start[0]["encoder"]), leaves(tuned.params["encoder"]), strict=True)
    assert all(np.abs(after - before).max() > 0 for before, after in moved)


def test_before_it_has_learned_it_predicts_the_prevalence(opened, tuner):
    train, validation = records(128), records(40, seed=1)
    tuned = fit(tuner, train, validation, epochs=1, learning_rates=(1e-30,))
    share = train.labels["planted"].mean(axis=0)
    probability = 1 / (1 + np.exp(-finetune.predict(opened, tuned, validation)))
    np.testing.assert_allclose(probability, np.tile(share, (40, 1)), rtol=1e-5)
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share)).mean()
    assert tuned.path[0].loss == pytest.approx(entropy, rel=1e-5)  # an epoch is all 128 records


def test_the_best_rate_and_epoch_on_validation_are_kept(tuner, monkeypatch):
    planted = iter([0.6, 0.8, 0.7, 0.5, 0.9, 0.9])
    seen, predict = [], finetune.predict

    def watched(opened, tuned, split):
        seen.append(leaves(tuned.params))
        return predict(opened, tuned, split)

    monkeypatch.setattr(finetune, "predict", watched)
    monkeypatch.setattr(finetune.metrics, "macro", lambda values: next(planted))
    tuned = fit(tuner, records(64), records(40, seed=1), learning_rates=(3e-3, 1e-3))
    assert [row.auroc for row in tuned.path] == [0.6, 0.8, 0.7, 0.5, 0.9, 0.9]
    assert tuned.best == tuned.path[4]  # of equally good ones the first
    assert (tuned.best.learning_rate, tuned.best.epoch) == (1e-3, 2)
    same = [all(map(np.array_equal, leaves(tuned.params), other)) for other in seen]
    assert same == [False, False, False, False, True, False]


def test_the_same_seed_gives_the_same_scores_and_another_start_others(opened, tuner):
    train, validation = records(64), records(40, seed=1)

    def scores(**given):
        tuned = fit(tuner, train, validation, epochs=2, min_updates=8, **given)
        return finetune.predict(opened, tuned, validation)

    first = scores()
    np.testing.assert_array_equal(first, scores())
    assert np.abs(first - scores(seed=1)).max() > 1e-3
    assert np.abs(first - scores(start=opened.init(jax.random.key(9)))).max() > 1e-3


def test_a_start_that_has_learned_helps_where_labels_are_few(tuner):
    validation, few = records(200, seed=3), records(20, seed=4)
    enough = {"epochs": 4, "min_updates": 40}
    many = fit(tuner, records(512, seed=2), validation, **enough)
    random = fit(tuner, few, validation, **enough)
    tuned = fit(tuner, few, validation, start=(many.params, many.state), **enough)
    assert tuned.best.auroc > random.best.auroc + 0.05


def test_a_head_that_starts_at_the_linear_probe(opened, tuner, trained):
    few, _, tuned = trained
    start = (tuned.params, tuned.state)
    options = {"head": "probe", "epochs": 1, "learning_rates": (1e-30,)}
    untouched = fit(tuner, few, few, start=start, **options)
    x, y = opened.encode(*start, few).features, few.labels["planted"]
    wanted = finetune.linear_probe.predict(finetune.linear_probe.fit(x, y, x, y), x)
    drift = np.abs(finetune.predict(opened, untouched, few) - wanted).max()
    assert drift < 0.2 * np.abs(wanted).max()  # only BatchNorm's statistics have moved


def test_all_methods_are_fine_tuned_under_one_chain(tuner, monkeypatch):
    """Else the column would compare recipes of augmentation."""
    usual = etp.get_config().evaluate
    assert usual.finetune.augment == usual.supervised.augment == common.AUGMENT
    for name in agreement.METHODS:
        config = importlib.import_module(f"configs.{name}").get_config()
        for protocol in ("finetune", "supervised"):
            assert config.evaluate[protocol].augment == usual[protocol].augment
    opened = experiment()
    opened.config.augment = ({"name": "scale", "low": 1e-6, "high": 1e-6},)  # of pre-training
    opened.config.evaluate.supervised.augment = ({"name": "invert", "probability": 1.0},)
    made = finetune.Finetuner(opened, "supervised")._augment
    ecg = np.ones((2, T, 12), np.float32)
    np.testing.assert_array_equal(made(jax.random.key(0), ecg, np.ones((2, 12), bool))[0], -ecg)


def test_one_and_eight_devices_agree(tuner):
    rows, once = [], {"epochs": 1, "min_updates": 1, "max_updates": 1}
    for these in (tuner, finetune.Finetuner(experiment(8), "supervised")):
        tuned = fit(these, records(64), records(40, seed=1), **once)
        rows.append((tuned.path[0].loss, leaves(tuned.state)))
    assert rows[0][0] == pytest.approx(rows[1][0], rel=1e-5)
    for one, eight in zip(rows[0][1], rows[1][1], strict=True):
        np.testing.assert_allclose(one, eight, atol=1e-5)


def test_a_class_that_cannot_be_learned_has_no_score(opened, tuner):
    train, validation = records(64), records(40, seed=1)
    train.labels["planted"][:, 0], train.labels["planted"][:, 2] = False, True
    tuned = fit(tuner, train, validation)
    score = finetune.predict(opened, tuned, validation)
    assert np.isnan(score[:, [0, 2]]).all() and np.isfinite(score[:, 1]).all()
    assert np.isnan(tuned.bias).tolist() == [True, False, True]
    assert np.isfinite([row.loss for row in tuned.path]).all()


def test_few_records_are_drawn_equally_often_and_the_updates_have_a_floor_and_a_ceiling():
    opened = experiment()
    opened.config.evaluate.supervised.update({**OPTIONS, "epochs": 5, "min_updates": 50})
    opened.config.evaluate.supervised.max_updates = 200
    tuner = finetune.Finetuner(opened, "supervised")

    def batches(N):
        return tuner._batches(records(N), np.eye(N, dtype=bool), seed=0)

    stream, total = batches(7)
    assert total == 50
    drawn = [np.asarray(batch.row) for batch in stream.batches(0, total)]
    assert {batch.shape for batch in drawn} == {(32, 7)}
    counts = sum(batch.sum(axis=0) for batch in drawn)
    assert counts.min() > 0.95 * counts.mean() and counts.max() < 1.05 * counts.mean()
    assert [batches(N)[1] for N in (320, 640, 3200)] == [50, 5 * 20, 200]


def test_labels_come_with_their_records(tuner):
    train = records(64)
    y = train.labels["planted"]
    stream, _ = tuner._batches(train, y, seed=0)
    batch = jax.device_get(stream.batch(1))
    for ecg, label in zip(batch.ecg, batch.row, strict=True):
        (n,) = np.flatnonzero((train.ecg == ecg).all(axis=(1, 2)))
        np.testing.assert_array_equal(label, y[n])


def test_the_schedule():
    rates = finetune.schedule(0.5, 100)
    np.testing.assert_allclose(rates[:10], 0.5 * np.arange(1, 11) / 10, rtol=1e-6)
    assert rates.argmax() in (9, 10) and (np.diff(rates[10:]) < 0).all()
    assert rates[55] == pytest.approx(0.25) and 0 < rates[-1] < 0.001
    assert finetune.schedule(0.5, 1).tolist() == [0.5]


def test_wrong_input(tuner):
    train, validation = records(64), records(40, seed=1)
    with pytest.raises(UserError, match="planted has no task 'super': it has planted"):
        fit(tuner, train, validation, task="super")
    with pytest.raises(UserError, match=r"supervised, planted: epoch \d at .* 1e\+30: the loss is"):
        fit(tuner, train, validation, learning_rates=(1e30,))
    validation.labels["planted"][:] = True
    with pytest.raises(UserError, match=r"no class of planted has .* the 40 validation records"):
        fit(tuner, train, validation)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 0, "must be above zero"),
        ("batch_size", 0, "must be above zero"),
        ("weight_decay", -1.0, "must not be negative"),
        ("learning_rates", (), "name one or more, above zero"),
        ("learning_rates", (1e-3, 0.0), "name one or more, above zero"),
        ("min_updates", 20_000, "more than the 10000 of max_updates"),
        ("head", "zero", "choose one of prevalence, probe"),
    ],
)
def test_values_that_no_training_on_labels_can_have(name, value, message):
    for protocol in ("finetune", "supervised"):
        config = etp.get_config("demo")
        config_lib.check(config)
        config.evaluate[protocol][name] = value
        with pytest.raises(UserError, match=rf"evaluate\.{protocol}\.{name}=.*: {message}"):
            config_lib.check(config)


@pytest.mark.parametrize("protocol", ["finetune", "supervised"])
@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"name": "blur"}, "unknown augmentation 'blur'"),
        ({"name": "crop", "seconds": 11.0}, "crop cuts 11 s out of 10 s"),
    ],
)
def test_augmentations_that_there_are_not(protocol, step, message):
    config = etp.get_config("demo")
    config.evaluate[protocol].augment = (step,)
    with pytest.raises(UserError, match=rf"--config.evaluate.{protocol}.augment: .*{message}"):
        config_lib.check(config)


def test_runs_from_before_there_were_these_options_get_the_defaults():
    config = common.base(common.parse_arg(""))
    old = config_lib.to_json(config)
    partly = config_lib.to_json(config)
    del old["evaluate"]["finetune"], old["evaluate"]["supervised"]
    del partly["evaluate"]["finetune"]["augment"], partly["evaluate"]["supervised"]["augment"]
    assert config_lib.to_json(config_lib.from_json(partly)) == config_lib.to_json(config)
    assert config_lib.to_json(config_lib.from_json(old)) == config_lib.to_json(config)


def test_training_mode_is_what_pre_training_sees(opened):
    params, state = opened.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    view = View(
        rng.normal(size=(8, T, 12)).astype(np.float32),
        np.ones((8, 12), bool),
        rng.normal(size=(8, 8)).astype(np.float32),
        *([np.arange(8)] * 3),
    )
    method = opened.method
    features, after = method.train_encode(params, state, view.ecg, view.lead_mask)
    _, (wanted, _) = method.loss(params, state, view, jax.random.key(0))
    assert features.shape == method.encode(params, state, view.ecg, view.lead_mask).features.shape
    for ours, theirs in zip(leaves(after), leaves(wanted), strict=True):
        np.testing.assert_array_equal(ours, theirs)
