"""The protocols: how classes are scored, each fitted and chosen on training and validation alone.

A protocol gives a `Fitted`; `predictions` applies it to test records. Under the rules "corrected"
and "ecg_fix" the records are those with a label of the task, under "paper" those with exactly one;
"ecg_fix" has fewer labels, and a linear probe of its own.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ecg_jax.data.records import Records
from ecg_jax.errors import NoFigureError, UserError
from ecg_jax.evaluation import challenge, fractions, robustness, tasks
from ecg_jax.evaluation.figures import metrics
from ecg_jax.evaluation.figures.predictions import Predictions
from ecg_jax.evaluation.papers import single_label, windows
from ecg_jax.evaluation.protocols import (
    attention_probe,
    ecg_fix,
    features,
    finetune,
    knn,
    linear_probe,
    report_bank,
    zero_shot,
)
from ecg_jax.evaluation.subject import Control, Subject

RULES = ("corrected", "paper", "ecg_fix")


class Fitted(NamedTuple):
    """`score` gives float32 [N, K] for all records of a split; `note` says what was chosen."""

    score: Callable[[Records], np.ndarray]
    note: str


class Judged(NamedTuple):
    """Rows int [n] of the records that a rule judges, and their labels bool [n, K], of the classes
    that it has (`classes`)."""

    rows: np.ndarray
    y: np.ndarray


def judged(split: Records, task: str, rule: str) -> Judged:
    """Corrected: the records with any label; one without is not known to be negative. Paper: those
    with exactly one, and MIT-BIH's windows by their most serious beat (see `windows`). ecg_fix:
    those with any of the labels that `ecg_fix.kept` keeps.

    Raises:
      UserError: the dataset has no such task.
      NoFigureError: no record of the split is judged.
    """
    tasks.check(split.dataset, split.classes, [task])
    y = split.labels[task]
    if rule == "ecg_fix":
        y = y[:, ecg_fix.kept(split.dataset, split.classes[task])]
    if rule == "paper" and (split.dataset, task) == windows.WHERE:
        y = windows.most_serious(y, split.classes[task])
    rows = single_label.only_one(y) if rule == "paper" else np.flatnonzero(y.any(axis=1))
    if not len(rows):
        which = "exactly one label" if rule == "paper" else "a label"
        raise NoFigureError(f"no record of {split.dataset} {split.split} has {which} of {task}")
    return Judged(rows, y[rows])


def classes(split: Records, task: str, rule: str) -> list[str]:
    """The classes of a task by a rule."""
    names = split.classes[task]
    return [names[k] for k in ecg_fix.kept(split.dataset, names)] if rule == "ecg_fix" else names


class Choice(NamedTuple):
    """How plain zero-shot is done for a task, as chosen on validation.

    Attributes:
      name: the prompt set and whether embeddings are centred.
      classes: float32 [K, E], unit vectors.
      centre: float64 [E], the mean record that is subtracted from embeddings; None as they are.
      auroc: macro AUROC on validation.
    """

    name: str
    classes: np.ndarray
    centre: np.ndarray | None
    auroc: float


def choose_zero_shot(subject: Subject, task: str) -> Choice:
    """The prompt set that does best on validation, of embeddings as they are or, where there are
    training reports, centred."""
    validation = subject.material.experiment.validation
    rows, y = judged(validation, task, "corrected")
    embedding = subject.encode(validation).embedding[rows]
    ways = {f"{name}, as they are": (c, None) for name, c in subject.classes(task).items()}
    if subject.bank is not None:
        centres = subject.centred_classes(task)
        ways |= {f"{name}, centred": (c, subject.mean) for name, c in centres.items()}
    scored = {name: zero_shot_scores(embedding, *way) for name, way in ways.items()}
    chosen = zero_shot.choose_prompt_set(scored, y)
    best = zero_shot.prompt_set_auroc(scored, y)[chosen]
    return Choice(chosen, *ways[chosen], best)


def zero_shot_scores(
    embedding: np.ndarray, classes: np.ndarray, centre: np.ndarray | None
) -> np.ndarray:
    """Cosines float32 [N, K] of embeddings [N, E], less `centre` if there is one, and classes."""
    if centre is not None:
        embedding = zero_shot.centred(embedding, centre)
    return zero_shot.scores(embedding, classes)


def fit_zero_shot(subject: Subject, task: str, rule: str) -> Fitted:
    """Corrected: as `choose_zero_shot`. Paper: the paper's one template, as they are."""

    def plain(split: Records) -> np.ndarray:
        return subject.encode(split).embedding

    if rule == "paper":
        experiment, classes = subject.material.experiment, subject.classes(task)
        judged(experiment.validation, task, rule)
        template = experiment.config.evaluate.paper
        if template not in classes:
            raise UserError(
                f"{experiment.config.evaluate.prompts}: [templates] lacks {template!r}, which the "
                "paper's rule asks with: add it, or leave the rule out of evaluate.rules"
            )
        note = f"the template of {template.upper()}"
        return Fitted(lambda s: zero_shot.scores(plain(s), classes[template]), note)
    return by_choice(subject, choose_zero_shot(subject, task))


def by_choice(subject: Subject, choice: Choice) -> Fitted:
    """Plain zero-shot as it was chosen."""

    def score(split: Records) -> np.ndarray:
        embedding = subject.encode(split).embedding
        return zero_shot_scores(embedding, choice.classes, choice.centre)

    return Fitted(score, f"prompts {choice.name}, validation macro AUROC {choice.auroc:.3f}")


# Temperatures tried on validation: of the softmax over reports, and of that over classes.
OVER_REPORTS = (0.05, 0.1)
OVER_CLASSES = (0.05, 0.1)


def fit_zero_shot_reports(subject: Subject, task: str, rule: str = "corrected") -> Fitted:
    """Through the training reports (see `report_bank.read`): what a report says of a class is the
    softmax over the classes of its cosine with the prompt, of its best sentence's with the class's
    best finding, or the sum of both; that, prompts and temperatures by validation.

    Raises:
      UserError: there are no training reports.
    """
    key, bank = ("zero_shot_reports", task, rule), subject.bank
    if bank is None:
        raise UserError("zero_shot_reports needs training reports")
    if key in subject.fits:
        return subject.fits[key]
    validation = subject.material.experiment.validation
    rows, y = judged(validation, task, rule)
    cosines = {name: bank.embedding @ c.T for name, c in subject.classes(task).items()}
    found = subject.found(task)
    says = {}
    for t in OVER_CLASSES:
        whole = {name: report_bank.softmax(cosine, t) for name, cosine in cosines.items()}
        best = report_bank.softmax(found, t)
        says |= {f"prompts {name}, {t:g} over classes": w for name, w in whole.items()}
        says[f"sentences, {t:g} over classes"] = best
        says[f"prompts report and sentences, {t:g} over classes"] = whole["report"] + best
    scored = {}
    embedding = subject.encode(validation).embedding[rows]
    for t in OVER_REPORTS:
        made = report_bank.read(embedding, bank, list(says.values()), t)
        scored |= {(name, t): x for name, x in zip(says, made, strict=True)}
    auroc = {key: float(metrics.macro(metrics.auroc(y, x))) for key, x in scored.items()}
    if any(map(math.isnan, auroc.values())):
        raise UserError("no class has positives and negatives in the validation split")
    name, t = max(auroc, key=auroc.__getitem__)
    note = (
        f"{name}, {t:g} over {len(bank.count):,} training reports, validation macro AUROC "
        f"{auroc[name, t]:.3f}"
    )

    def score(split: Records) -> np.ndarray:
        return report_bank.read(subject.encode(split).embedding, bank, [said], t)[0]

    said = says[name]
    subject.fits[key] = Fitted(score, note)
    return subject.fits[key]


def fit_linear_probe(
    subject: Subject | Control, task: str, rule: str, fraction: float = 1.0
) -> Fitted:
    """A logistic regression on what `subject.probed` gives of a share of the labelled training
    records. ecg_fix: chosen as `ecg_fix.fit` does."""
    key = (task, rule, fraction)

    def probed(split: Records) -> np.ndarray:
        return subject.probed(split, rule)

    if key not in subject.probes:
        x, y, share = _frozen(subject, task, rule, fraction, probed)
        if rule == "ecg_fix":
            bases = _basis(subject, rule), _basis(subject, rule, scaled=False)
            probe, chosen = ecg_fix.fit(x[0], y[0], x[1], y[1], bases)
        else:
            probe = linear_probe.fit(x[0], y[0], x[1], y[1], basis=_basis(subject, rule))
            best = max(value for _, value in probe.path)
            chosen = f"penalty {probe.l2:g}, validation macro AUROC {best:.3f}"
        subject.probes[key] = probe, subject.probed_note(rule) + chosen + share
    probe, note = subject.probes[key]
    return Fitted(lambda s: linear_probe.predict(probe, probed(s)), note)


def _basis(subject: Subject | Control, rule: str, *, scaled: bool = True) -> np.ndarray:
    """`linear_probe.principal` of all training records' features, once for all tasks."""
    key = rule == "paper", scaled
    if key not in subject.bases:
        x = subject.probed(subject.material.experiment.train, rule)
        mean, deviation = features.statistics(x)
        scale = deviation if scaled else ecg_fix.unscaled(deviation)
        subject.bases[key] = linear_probe.principal(x, mean, scale)
    return subject.bases[key]


def fit_attention_probe(subject: Subject, task: str, rule: str, fraction: float = 1.0) -> Fitted:
    """One learned query over the frozen feature map, and a linear head."""
    seed = subject.material.experiment.config.seed
    x, y, share = _frozen(subject, task, rule, fraction, subject.map)
    probe = attention_probe.fit(x[0], y[0], x[1], y[1], seed=seed)
    epoch, best = max(probe.path, key=lambda step: step[1])
    note = f"epoch {epoch}, validation macro AUROC {best:.3f}{share}"
    return Fitted(lambda s: attention_probe.predict(probe, subject.map(s)), note)


def fit_knn(subject: Subject, task: str, rule: str) -> Fitted:
    """The nearest training records vote."""

    def mean(split: Records) -> np.ndarray:
        return subject.encode(split).features

    x, y, _ = _frozen(subject, task, rule, 1.0, mean)
    model = knn.fit(x[0], y[0], x[1], y[1])
    note = f"k {model.k}, validation macro AUROC {max(value for _, value in model.path):.3f}"
    return Fitted(lambda s: knn.predict(model, mean(s)), note)


def fit_finetune(
    subject: Subject, task: str, rule: str, fraction: float, leads: int = 12
) -> Fitted:
    """Encoder and head, trained on. From random weights and on all labels, this is supervised
    training. `leads`, one of `robustness.SUBSETS`, are seen in training and after it, and all
    others are zero."""
    experiment = subject.material.experiment
    train, note = training(experiment.train, task, rule, fraction, experiment.config.seed)
    validation = judged(experiment.validation, task, rule)
    options = "supervised" if subject.name == "random" else "finetune"

    def shown(split: Records) -> Records:
        return split if leads == 12 else robustness.only(split, robustness.SUBSETS[leads])

    tuned = subject.material.finetuner(options).fit(
        subject.params,
        subject.state,
        shown(_relabelled(experiment.train, task, train)),
        shown(_relabelled(experiment.validation, task, validation)),
        task,
        seed=experiment.config.seed,
    )
    return Fitted(lambda s: finetune.predict(experiment, tuned, shown(s)), tuned.note + note)


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


def _frozen(
    subject: Subject | Control,
    task: str,
    rule: str,
    fraction: float,
    given: Callable[[Records], np.ndarray],
) -> tuple[list[np.ndarray], list[np.ndarray], str]:
    """Features and labels of (training, validation), and a note on the share."""
    experiment = subject.material.experiment
    splits = (experiment.train, experiment.validation)
    train, note = training(splits[0], task, rule, fraction, experiment.config.seed)
    both = (train, judged(splits[1], task, rule))
    x = [given(s)[of.rows] for s, of in zip(splits, both, strict=True)]
    return x, [of.y for of in both], note


def predictions(
    subject: Subject | Control,
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
    condition; and thresholds from the validation records as they are: those with the best F1 or, of
    the Challenge's classes, with its best score."""
    experiment = subject.material.experiment
    validation = experiment.validation
    test = test or (experiment.test if split == "test" else validation)
    chosen, those = judged(validation, task, rule), judged(test, task, rule)
    names, scores = classes(test, task, rule), fitted.score(validation)[chosen.rows]
    threshold = metrics.best_f1_threshold(chosen.y, scores)
    if task == challenge.TASK:
        threshold = challenge.thresholds(chosen.y, scores, names)
    return Predictions(
        task=task,
        dataset=test.dataset,
        protocol=protocol,
        encoder=encoder or subject.name,
        rule=rule,
        fraction=fraction,
        condition=condition,
        classes=names,
        record_id=test.record_id[those.rows],
        patient_id=test.patient_id[those.rows],
        y=those.y,
        score=fitted.score(test)[those.rows],
        threshold=threshold,
        note=fitted.note,
        split=split,
    )
