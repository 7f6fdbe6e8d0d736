"""The protocols: how classes are scored, each fitted and chosen on training and validation alone.

A protocol gives a `Fitted`; `predictions` applies it to test records. Under the rule "corrected"
the records are those with a label of the task, under "paper" those with exactly one.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ecg_jax.data.records import Records
from ecg_jax.errors import NoFigureError, UserError
from ecg_jax.evaluation import fractions, tasks
from ecg_jax.evaluation.figures import metrics
from ecg_jax.evaluation.figures.predictions import Predictions
from ecg_jax.evaluation.papers import single_label, windows
from ecg_jax.evaluation.protocols import features, finetune, knn, linear_probe, zero_shot
from ecg_jax.evaluation.subject import Subject

RULES = ("corrected", "paper")


class Fitted(NamedTuple):
    """`score` gives float32 [N, K] for all records of a split; `note` says what was chosen."""

    score: Callable[[Records], np.ndarray]
    note: str


class Judged(NamedTuple):
    """Rows int [n] of the records that a rule judges, and their labels bool [n, K]."""

    rows: np.ndarray
    y: np.ndarray


def judged(split: Records, task: str, rule: str) -> Judged:
    """Corrected: the records with any label; one without is not known to be negative. Paper: those
    with exactly one, and MIT-BIH's windows by their most serious beat (see `windows`).

    Raises:
      UserError: the dataset has no such task.
      NoFigureError: no record of the split is judged.
    """
    tasks.check(split.dataset, split.classes, [task])
    y = split.labels[task]
    if rule == "paper" and (split.dataset, task) == ("mit_bih", "aami"):
        y = windows.most_serious(y, split.classes[task])
    rows = single_label.only_one(y) if rule == "paper" else np.flatnonzero(y.any(axis=1))
    if not len(rows):
        which = "exactly one label" if rule == "paper" else "a label"
        raise NoFigureError(f"no record of {split.dataset} {split.split} has {which} of {task}")
    return Judged(rows, y[rows])


def fit_zero_shot(subject: Subject, task: str, rule: str) -> Fitted:
    """Corrected: the prompt set that does best on validation. Paper: the paper's one template."""
    experiment = subject.material.experiment
    validation, classes = experiment.validation, subject.classes(task)
    rows, y = judged(validation, task, rule)
    embedding = subject.encode(validation).embedding[rows]
    by_set = {name: zero_shot.scores(embedding, c) for name, c in classes.items()}
    if rule == "paper":
        chosen = experiment.config.evaluate.paper
        if chosen not in by_set:
            raise UserError(
                f"{experiment.config.evaluate.prompts}: [templates] lacks {chosen!r}, which the "
                "paper's rule asks with: add it, or leave the rule out of evaluate.rules"
            )
        note = f"the template of {chosen.upper()}"
    else:
        chosen = zero_shot.choose_prompt_set(by_set, y)
        best = zero_shot.prompt_set_auroc(by_set, y)[chosen]
        note = f"prompts {chosen}, validation macro AUROC {best:.3f}"
    return Fitted(lambda s: zero_shot.scores(subject.encode(s).embedding, classes[chosen]), note)


def fit_linear_probe(subject: Subject, task: str, rule: str, fraction: float = 1.0) -> Fitted:
    """A logistic regression on frozen features of a share of the labelled training records.
    Corrected: with `evaluate.l2_normalize`, of features divided by their length. Paper: as they
    are."""
    divided = rule == "corrected" and subject.material.experiment.config.evaluate.l2_normalize
    prepared = features.l2_normalize if divided else np.asarray
    key = (task, rule, fraction)
    if key not in subject.probes:
        x, y, note = _frozen(subject, task, rule, fraction)
        subject.probes[key] = linear_probe.fit(prepared(x[0]), y[0], prepared(x[1]), y[1]), note
    probe, note = subject.probes[key]
    best = max(value for _, value in probe.path)
    chosen = f"penalty {probe.l2:g}, validation macro AUROC {best:.3f}{note}"
    if divided:
        chosen = f"L2-normalised features, {chosen}"
    return Fitted(
        lambda s: linear_probe.predict(probe, prepared(subject.encode(s).features)), chosen
    )


def fit_knn(subject: Subject, task: str, rule: str) -> Fitted:
    """The nearest training records vote."""
    x, y, _ = _frozen(subject, task, rule, 1.0)
    model = knn.fit(x[0], y[0], x[1], y[1])
    note = f"k {model.k}, validation macro AUROC {max(value for _, value in model.path):.3f}"
    return Fitted(lambda s: knn.predict(model, subject.encode(s).features), note)


def fit_finetune(subject: Subject, task: str, rule: str, fraction: float) -> Fitted:
    """Encoder and head, trained on. From random weights and on all labels, this is supervised
    training."""
    experiment = subject.material.experiment
    train, note = training(experiment.train, task, rule, fraction, experiment.config.seed)
    validation = judged(experiment.validation, task, rule)
    options = "supervised" if subject.name == "random" else "finetune"
    tuned = subject.material.finetuner(options).fit(
        subject.params,
        subject.state,
        _relabelled(experiment.train, task, train),
        _relabelled(experiment.validation, task, validation),
        task,
        seed=experiment.config.seed,
    )
    return Fitted(lambda s: finetune.predict(experiment, tuned, s), tuned.note + note)


def _relabelled(split: Records, task: str, of: Judged) -> Records:
    """The judged records, with the labels that the rule gives them."""
    records = split.take(of.rows)
    return dataclasses.replace(records, labels=records.labels | {task: of.y})


def training(
    train: Records, task: str, rule: str, fraction: float, seed: int
) -> tuple[Judged, str]:
    """The judged records of a share of the patients, and a note on a share below one."""
    rows, y = judged(train, task, rule)
    if fraction == 1:
        return Judged(rows, y), ""
    subset = fractions.draw(y, train.patient_id[rows], fraction, seed)
    return Judged(rows[subset.rows], y[subset.rows]), f"; {subset.note}"


def _frozen(subject: Subject, task: str, rule: str, fraction: float):
    """Features and labels of (training, validation), and a note on the share."""
    experiment = subject.material.experiment
    splits = (experiment.train, experiment.validation)
    train, note = training(splits[0], task, rule, fraction, experiment.config.seed)
    both = (train, judged(splits[1], task, rule))
    x = [subject.encode(s).features[of.rows] for s, of in zip(splits, both, strict=True)]
    return x, [of.y for of in both], note


def predictions(
    subject: Subject,
    task: str,
    protocol: str,
    rule: str,
    fitted: Fitted,
    *,
    fraction: float | None = None,
    test: Records | None = None,
    condition: str = "",
    encoder: str = "",
    split: str = "test",
) -> Predictions:
    """Scores of the test (or validation) records, or of `test`, which are the test records under a
    condition; and thresholds from the validation records as they are."""
    experiment = subject.material.experiment
    validation = experiment.validation
    test = test or (experiment.test if split == "test" else validation)
    chosen, those = judged(validation, task, rule), judged(test, task, rule)
    threshold = metrics.best_f1_threshold(chosen.y, fitted.score(validation)[chosen.rows])
    return Predictions(
        task=task,
        dataset=test.dataset,
        protocol=protocol,
        encoder=encoder or subject.name,
        rule=rule,
        fraction=fraction,
        condition=condition,
        classes=test.classes[task],
        record_id=test.record_id[those.rows],
        patient_id=test.patient_id[those.rows],
        y=those.y,
        score=fitted.score(test)[those.rows],
        threshold=threshold,
        note=fitted.note,
        split=split,
    )
