"""Fine-tuning: it learns, keeps what validation chooses, and does not depend on the devices."""

import types
from typing import Any

import jax
import numpy as np
import pytest

from configs import common, etp
from ecg_jax import config as config_lib
from ecg_jax import parallel
from ecg_jax.data.leads import LEADS
from ecg_jax.data.records import Records
from ecg_jax.errors import UserError
from ecg_jax.evaluation import finetune, metrics
from ecg_jax.experiment import Experiment
from ecg_jax.methods import View, build

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
        labels={"planted": y},
        classes={"planted": CLASSES},
    )


def experiment(devices=1, **options):
    config = etp.get_config("demo")
    config.update(seconds=T / 100, augment=())
    config.model.update(width=8, dim=16, convolution="plain")
    config.evaluate.finetune.update(
        {"epochs": 3, "min_updates": 3, "batch_size": 32, "learning_rates": (3e-3,), **options}
    )
    mesh = parallel.make_mesh(jax.devices()[:devices])
    tower: Any = types.SimpleNamespace(width=8)
    return Experiment(config, mesh, build(config), tower)


def fit(opened, train, validation, *, start=None, seed=0, task="planted", tuner=None):
    params, state = start or opened.init(jax.random.key(0))
    tuner = tuner or finetune.Finetuner(opened)
    return tuner.fit(params, state, train, validation, task, seed=seed)


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(jax.device_get(tree))]


@pytest.fixture(scope="module")
def trained():
    """150 updates on 32 records whose labels are random, and the start."""
    opened = experiment(epochs=6, min_updates=150)
    rng = np.random.default_rng(5)
    few = records(32)
    few.labels["planted"][:] = rng.random((32, 3)) < 0.5
    start = opened.init(jax.random.key(0))
    return opened, few, start, fit(opened, few, few, start=start)


def test_it_overfits_a_small_batch(trained):
    opened, few, start, tuned = trained
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


def test_before_it_has_learned_it_predicts_the_prevalence():
    opened = experiment(epochs=1, learning_rates=(1e-30,), weight_decay=0.0)
    train, validation = records(128), records(40, seed=1)
    tuned = fit(opened, train, validation)
    share = train.labels["planted"].mean(axis=0)
    probability = 1 / (1 + np.exp(-finetune.predict(opened, tuned, validation)))
    np.testing.assert_allclose(probability, np.tile(share, (40, 1)), rtol=1e-5)
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share)).mean()
    assert tuned.path[0].loss == pytest.approx(entropy, rel=1e-5)  # an epoch is all 128 records


def test_the_best_rate_and_epoch_on_validation_are_kept(monkeypatch):
    opened = experiment(learning_rates=(3e-3, 1e-3))
    planted = iter([0.6, 0.8, 0.7, 0.5, 0.9, 0.9])
    seen, predict = [], finetune.predict

    def watched(opened, tuned, split):
        seen.append(leaves(tuned.params))
        return predict(opened, tuned, split)

    monkeypatch.setattr(finetune, "predict", watched)
    monkeypatch.setattr(finetune.metrics, "macro", lambda values: next(planted))
    tuned = fit(opened, records(64), records(40, seed=1))
    assert [row.auroc for row in tuned.path] == [0.6, 0.8, 0.7, 0.5, 0.9, 0.9]
    assert tuned.best == tuned.path[4]  # of equally good ones the first
    assert (tuned.best.learning_rate, tuned.best.epoch) == (1e-3, 2)
    same = [all(map(np.array_equal, leaves(tuned.params), other)) for other in seen]
    assert same == [False, False, False, False, True, False]


def test_the_same_seed_gives_the_same_scores_and_another_start_others():
    opened = experiment(epochs=2, min_updates=8)
    train, validation = records(64), records(40, seed=1)
    tuner = finetune.Finetuner(opened)
    first = fit(opened, train, validation, tuner=tuner)
    scores = [finetune.predict(opened, first, validation)]
    for seed, start in ((0, None), (1, None), (0, opened.init(jax.random.key(9)))):
        other = fit(opened, train, validation, seed=seed, start=start, tuner=tuner)
        scores.append(finetune.predict(opened, other, validation))
    np.testing.assert_array_equal(scores[0], scores[1])
    assert np.abs(scores[0] - scores[2]).max() > 1e-3
    assert np.abs(scores[0] - scores[3]).max() > 1e-3


def test_a_start_that_has_learned_helps_where_labels_are_few():
    opened = experiment(epochs=4, min_updates=40)
    tuner, validation = finetune.Finetuner(opened), records(200, seed=3)
    many = fit(opened, records(512, seed=2), validation, tuner=tuner)
    few = records(20, seed=4)
    random = fit(opened, few, validation, tuner=tuner)
    tuned = fit(opened, few, validation, start=(many.params, many.state), tuner=tuner)
    assert tuned.best.auroc > random.best.auroc + 0.05


def test_a_head_that_starts_at_the_linear_probe(trained):
    opened, few, _, tuned = trained
    start = (tuned.params, tuned.state)
    probed = experiment(head="probe", epochs=1, learning_rates=(1e-30,))
    untouched = fit(probed, few, few, start=start)
    x = opened.encode(*start, few).features
    y = few.labels["planted"]
    probe = finetune.linear_probe.fit(x, y, x, y)
    wanted = finetune.linear_probe.predict(probe, x)
    drift = np.abs(finetune.predict(probed, untouched, few) - wanted).max()
    assert drift < 0.2 * np.abs(wanted).max()  # only BatchNorm's statistics have moved


def test_one_and_eight_devices_agree():
    rows = []
    for devices in (1, 8):
        opened = experiment(devices, epochs=1, min_updates=1, max_updates=1, head_rate=2.0)
        tuned = fit(opened, records(64), records(40, seed=1))
        rows.append((tuned.path[0].loss, leaves(tuned.state)))
    assert rows[0][0] == pytest.approx(rows[1][0], rel=1e-5)
    for one, eight in zip(rows[0][1], rows[1][1], strict=True):
        np.testing.assert_allclose(one, eight, atol=1e-5)


def test_a_class_that_cannot_be_learned_has_no_score():
    train, validation = records(64), records(40, seed=1)
    train.labels["planted"][:, 0], train.labels["planted"][:, 2] = False, True
    opened = experiment()
    tuned = fit(opened, train, validation)
    score = finetune.predict(opened, tuned, validation)
    assert np.isnan(score[:, [0, 2]]).all() and np.isfinite(score[:, 1]).all()
    assert np.isnan(tuned.bias).tolist() == [True, False, True]
    assert np.isfinite([row.loss for row in tuned.path]).all()


def test_few_records_are_drawn_equally_often_and_the_updates_have_a_floor_and_a_ceiling():
    opened = experiment(epochs=5, min_updates=50, max_updates=200)
    tuner = finetune.Finetuner(opened)
    stream, total = tuner._batches(records(7), seed=0)
    assert total == 50
    drawn = np.concatenate([np.asarray(batch.text) for batch in stream.batches(0, total)])
    assert len(drawn) == 50 * 32
    counts = np.bincount(drawn, minlength=7)
    assert counts.min() > 0.95 * counts.mean() and counts.max() < 1.05 * counts.mean()
    assert tuner._batches(records(320), seed=0)[1] == 50
    assert tuner._batches(records(640), seed=0)[1] == 5 * 20
    assert tuner._batches(records(3200), seed=0)[1] == 200


def test_the_schedule():
    rates = finetune.schedule(0.5, 100)
    np.testing.assert_allclose(rates[:10], 0.5 * np.arange(1, 11) / 10, rtol=1e-6)
    assert rates.argmax() in (9, 10) and (np.diff(rates[10:]) < 0).all()
    assert rates[55] == pytest.approx(0.25) and 0 < rates[-1] < 0.001
    assert finetune.schedule(0.5, 1).tolist() == [0.5]


def test_wrong_input():
    opened = experiment(learning_rates=(1e30,))
    train, validation = records(64), records(40, seed=1)
    with pytest.raises(UserError, match="planted has no task 'super': it has planted"):
        fit(opened, train, validation, task="super")
    with pytest.raises(UserError, match=r"on planted: the loss is .* in epoch \d at learning rate"):
        fit(opened, train, validation)
    validation.labels["planted"][:] = True
    with pytest.raises(UserError, match=r"no class of planted has .* the 40 validation records"):
        fit(opened, train, validation)


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
def test_values_that_no_fine_tuning_can_have(name, value, message):
    config = etp.get_config("demo")
    config_lib.check(config)
    config.evaluate.finetune[name] = value
    with pytest.raises(UserError, match=rf"--config\.evaluate\.finetune\.{name}=.*: {message}"):
        config_lib.check(config)


def test_runs_from_before_fine_tuning_get_todays_options():
    config = common.base(common.parse_arg(""))
    old = config_lib.to_json(config)
    del old["evaluate"]["finetune"]
    assert config_lib.from_json(old).evaluate.finetune == config.evaluate.finetune


def test_training_mode_is_what_pre_training_sees():
    opened = experiment()
    params, state = opened.init(jax.random.key(0))
    rng = np.random.default_rng(0)
    view = View(
        rng.normal(size=(8, T, 12)).astype(np.float32),
        np.ones((8, 12), bool),
        rng.normal(size=(8, 8)).astype(np.float32),
        np.arange(8),
    )
    method = opened.method
    features, after = method.train_encode(params, state, view.ecg, view.lead_mask)
    _, (wanted, _) = method.loss(params, state, view, jax.random.key(0))
    assert features.shape == method.encode(params, state, view.ecg, view.lead_mask).features.shape
    for ours, theirs in zip(leaves(after), leaves(wanted), strict=True):
        np.testing.assert_array_equal(ours, theirs)
