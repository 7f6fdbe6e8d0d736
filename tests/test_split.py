"""What a method asks of the training records, and what validation says of a collapse."""

import dataclasses
import types

import numpy as np
import pytest

from ecg_jax import train
from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError
from ecg_jax.evaluation.validator import Validator
from ecg_jax.methods import Encoded
from ecg_jax.methods.shared import health
from ecg_jax.run.experiment import Experiment, open_experiment, report_texts


def experiment(small, *, leads=(), whole=False, **changed):
    """`small`, of a method with needs, on training records that are changed."""
    opened = open_experiment(small)
    method = opened.method._replace(leads=leads, whole=whole)
    made = Experiment(small, opened.mesh, method, opened.tower)
    made.__dict__["train"] = dataclasses.replace(opened.train, **changed)
    return made


def as_mit_bih(n):
    """Most records have II and V1, one has II and V5: each lead is in some, V1 not in all."""
    mask = np.zeros((n, 12), bool)
    mask[:, [LEADS.index("II"), LEADS.index("V1")]] = True
    mask[0, LEADS.index("V1")], mask[0, LEADS.index("V5")] = False, True
    return mask


def test_a_lead_that_some_records_lack_is_named(small):
    n = len(open_experiment(small).train)
    train.check_split(experiment(small, leads=("II",), lead_mask=as_mit_bih(n)))
    with pytest.raises(UserError, match=rf"leads II, V1, and 1 of {n} .* have no V1: choose"):
        train.check_split(experiment(small, leads=("II", "V1"), lead_mask=as_mit_bih(n)))


def test_records_that_end_before_they_are_compared_are_named(small):
    length = np.full(len(open_experiment(small).train), 1000, np.int32)
    train.check_split(experiment(small, whole=True, length=length))
    length[3] = 600
    train.check_split(experiment(small, length=length))
    with pytest.raises(UserError, match=r"1 of .* shorter than 10 s: set --config.seconds=6 or"):
        train.check_split(experiment(small, whole=True, length=length))


def test_records_that_all_end_before_the_seconds_of_the_config(small, capsys):
    length = np.full(len(open_experiment(small).train), 600, np.int32)
    with pytest.raises(UserError, match=r"seconds=10: the longest of .* has 6 s: set that or less"):
        train.check_split(experiment(small, length=length))
    length[0] = 1000
    train.check_split(experiment(small, length=length))
    assert "40% of what is read of the training records is zeros" in capsys.readouterr().out


def test_a_leak_is_found_before_the_training(small, monkeypatch):
    """One recording in train and test, under another id and of another patient."""
    opened = experiment(small)
    train_, test = opened.train, opened.test
    seen = dataclasses.replace(
        train_,
        ecg=np.concatenate([train_.ecg[:-1], test.ecg[:1]]),
        signal_sha256=np.concatenate([train_.signal_sha256[:-1], test.signal_sha256[:1]]),
    )
    opened.__dict__["train"] = seen
    monkeypatch.setattr(train, "open_experiment", lambda _: opened)
    with pytest.raises(UserError, match="1 recordings of simulated train are also in simulated te"):
        train.open_together(small)
    opened.__dict__["train"] = dataclasses.replace(
        train_, labels={task: y[:, ::-1] for task, y in train_.labels.items()}
    )
    with pytest.raises(UserError, match=r"simulated train.*prepare the dataset again"):
        train.open_together(small)


def test_a_dataset_without_reports_is_named(small):
    split = open_experiment(small).train
    silent = dataclasses.replace(split, report=[""] * len(split))
    for small.text.empty in ("drop", "error"):
        with pytest.raises(UserError, match="simulated has no reports: a method that learns from"):
            report_texts(small, silent)


@pytest.mark.parametrize("collapsed", [True, False])
def test_a_collapse_on_validation_is_said(small, monkeypatch, capsys, collapsed):
    opened = open_experiment(small)
    embedding = np.random.default_rng(0).standard_normal((len(opened.validation), 32))
    if collapsed:
        embedding = embedding[:, :1] * np.ones(32) + 1
    validator = Validator(opened)
    monkeypatch.setattr(
        "ecg_jax.evaluation.validator.Subject",
        lambda *_: types.SimpleNamespace(encode=lambda _: Encoded(embedding, embedding, None)),
    )
    monkeypatch.setattr(validator, "_zero_shot", lambda *_: 0.5)
    rank = validator({}, {}, 1)["effective_rank"]
    assert (rank < health.LEAST_RANK) == collapsed
    assert ("have collapsed, to an effective rank of 1.0" in capsys.readouterr().out) == collapsed


@pytest.mark.parametrize(("select", "chosen"), [("super", 0.9), ("mean", 0.7), ("last", 3.0)])
def test_what_names_the_checkpoint(small, monkeypatch, select, chosen):
    small.evaluate.update(tasks=("super", "findings"), select=select, knn_every=0)
    opened = open_experiment(small)
    embedding = np.random.default_rng(0).standard_normal((len(opened.validation), 32))
    validator = Validator(opened)
    monkeypatch.setattr(
        "ecg_jax.evaluation.validator.Subject",
        lambda *_: types.SimpleNamespace(encode=lambda _: Encoded(embedding, embedding, None)),
    )
    figures = {"super": 0.9, "findings": 0.5}
    monkeypatch.setattr(validator, "_zero_shot", lambda _, task, __: figures[task])
    assert validator({}, {}, 3)["select"] == pytest.approx(chosen)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tasks": ("super", "frm")}, "frm"),
        ({"tasks": ()}, "evaluate.tasks is empty"),
        ({"select": "sub"}, "evaluate.select=sub is neither mean nor last nor one of .*super"),
    ],
)
def test_tasks_are_known_before_training(small, fields, message):
    small.evaluate.update(fields)
    with pytest.raises(UserError, match=message):
        Validator(open_experiment(small))
