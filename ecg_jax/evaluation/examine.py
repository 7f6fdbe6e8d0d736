"""One encoder through the protocols and tasks that a config names."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ecg_jax import Config
from ecg_jax.errors import NoFigureError, UserError
from ecg_jax.evaluation import controls, identify, robustness, scoring
from ecg_jax.evaluation.figures.predictions import Predictions
from ecg_jax.evaluation.guards import label_check
from ecg_jax.evaluation.scoring import RULES
from ecg_jax.evaluation.stand_ins import OwnReport
from ecg_jax.evaluation.subject import Control, Subject
from ecg_jax.text import prompts

# Those of networks that are trained on labels, and of zero-shot; "ecg_fix" is of the linear probe.
LABELLED_RULES = ("corrected", "paper")


def check(config: Config) -> None:
    """Raises a UserError for a list of what is evaluated that names a thing twice, or one that
    there is not, and for a prompt file that is wrong. Which tasks there are, the records say."""
    prompts.load_prompts(config.evaluate.prompts or None)
    harder = (condition.name for condition in robustness.conditions(config.rate))
    known = {
        "protocols": tuple(PROTOCOLS),
        "rules": RULES,
        "finetune_rules": LABELLED_RULES,
        "conditions": ("all", *harder),
        "controls": controls.NAMES,
    }
    for field in ("tasks", "fractions", "finetune_fractions", *known):
        asked = config.evaluate[field]
        for name in asked:
            if field in known and name not in known[field]:
                kind = field.replace("finetune_", "").removesuffix("s")
                raise UserError(f"unknown {kind} {name!r}: there are {', '.join(known[field])}")
        if len(set(asked)) < len(asked):
            raise UserError(f"evaluate.{field}={','.join(map(str, asked))}: name each once")
    asked = config.evaluate
    if unknown := [n for n in asked.finetune_leads if n not in robustness.SUBSETS]:
        raise UserError(
            f"evaluate.finetune_leads={unknown[0]}: there are sets of "
            f"{', '.join(map(str, robustness.SUBSETS))} leads"
        )
    trains = {"finetune", "supervised"} & set(asked.protocols)
    if trains and not set(asked.finetune_rules) & set(asked.rules):
        raise UserError(
            f"evaluate.finetune_rules={','.join(asked.finetune_rules)}: none of them is in "
            f"evaluate.rules={','.join(asked.rules)}"
        )


def examine(subject: Subject | Control) -> Iterator[Predictions]:
    """Predictions of every protocol, task, rule, fraction and condition of the config; of a
    control, those of the linear probe on the records as they are.

    Raises:
      UserError: an unknown task; labels that look misplaced.
    """
    config = subject.material.experiment.config.evaluate
    if isinstance(subject, Control):
        for task in config.tasks if "linear_probe" in config.protocols else ():
            print(f"{subject.name}, linear_probe: {task}", flush=True)
            yield from _linear_probe(subject, task)
        return
    of_labels = [name for name in config.protocols if name != "delineate"]
    for task in config.tasks if of_labels else ():
        if subject.name != "random":
            _guard(subject, task)
    for name in of_labels:
        for task in () if name == identify.PROTOCOL else config.tasks:
            print(f"{subject.name}, {name}: {task}", flush=True)
            yield from PROTOCOLS[name](subject, task)
        subject.forget_maps()
    yield from _under_conditions(subject)


def _guard(subject: Subject, task: str) -> None:
    """Raises a UserError if a linear probe's scores rank the test records of another class better
    than their own: label columns look misplaced."""
    try:
        fitted = scoring.fit_linear_probe(subject, task, "corrected")
    except UserError as error:
        print(f"the label columns of {task} could not be checked by a linear probe: {error}")
        return
    p = scoring.predictions(subject, task, "linear_probe", "corrected", fitted)
    where = f"{p.dataset} test, {task}"
    label_check.check_columns(p.y, p.score, p.patient_id, p.classes, where=where)


def _by_rule(
    subject: Subject | Control,
    task: str,
    scored: Callable[[str], Iterator[Predictions]],
    rules: Sequence[str] | None = None,
) -> Iterator[Predictions]:
    """`scored(rule)` of these rules, or of the config's. Where no record has exactly one label, or
    too few have, there are no figures by the paper's rule, and a line says so; what else may go
    wrong ends the evaluation."""
    asked = subject.material.experiment.config.evaluate.rules
    for rule in asked if rules is None else rules:
        try:
            found = list(scored(rule))
        except NoFigureError as error:
            if rule != "paper":
                raise
            print(f"{subject.name}, {task}: no figures by the paper's rule: {error}")
            continue
        yield from found


def _zero_shot(subject: Subject, task: str) -> Iterator[Predictions]:
    def scored(rule: str) -> Iterator[Predictions]:
        fitted = scoring.fit_zero_shot(subject, task, rule)
        yield from _both_splits(subject, task, "zero_shot", rule, fitted, None)

    if subject.reads_text:
        rules = subject.material.experiment.config.evaluate.rules
        yield from _by_rule(subject, task, scored, [r for r in rules if r in LABELLED_RULES])


def _zero_shot_reports(subject: Subject, task: str) -> Iterator[Predictions]:
    if subject.reads_text and subject.bank is not None:
        fitted = scoring.fit_zero_shot_reports(subject, task)
        yield from _both_splits(subject, task, "zero_shot_reports", "corrected", fitted, None)


def _own_report(subject: Subject, task: str) -> Iterator[Predictions]:
    """Zero-shot with the record's own report in place of its ECG, by the same choice."""
    if not subject.reads_text or subject.name == "random":
        return
    there = subject.material.experiment
    if not (any(there.test.report) and any(there.validation.report) and any(there.train.report)):
        print(f"{subject.name}, own_report: {there.test.dataset} has no reports")
        return
    own = OwnReport(subject.name, subject.material, subject.params, subject.state)
    fitted = scoring.fit_zero_shot(own, task, "corrected")
    yield scoring.predictions(own, task, "own_report", "corrected", fitted)


def _linear_probe(subject: Subject | Control, task: str) -> Iterator[Predictions]:
    def scored(rule: str) -> Iterator[Predictions]:
        fractions = subject.material.experiment.config.evaluate.fractions
        for fraction in (1.0,) if rule == "paper" else fractions:
            fitted = scoring.fit_linear_probe(subject, task, rule, fraction)
            yield from _both_splits(subject, task, "linear_probe", rule, fitted, fraction)

    yield from _by_rule(subject, task, scored)


def _attention_probe(subject: Subject, task: str) -> Iterator[Predictions]:
    fitted = scoring.fit_attention_probe(subject, task, "corrected")
    yield from _both_splits(subject, task, "attention_probe", "corrected", fitted, 1.0)


def _both_splits(
    subject: Subject | Control,
    task: str,
    protocol: str,
    rule: str,
    fitted: scoring.Fitted,
    fraction: float | None,
) -> Iterator[Predictions]:
    """The test records and, under the corrected rule with all labels, the validation records."""
    options: dict[str, Any] = {"fraction": fraction}
    if rule == "corrected" and fraction in (None, 1.0):
        yield scoring.predictions(
            subject, task, protocol, rule, fitted, split="validation", **options
        )
    yield scoring.predictions(subject, task, protocol, rule, fitted, **options)


def _under_conditions(subject: Subject) -> Iterator[Predictions]:
    """Frozen protocols with all labels on harder test records, one condition in memory at a time;
    "all" are those that change the records and that they can be brought to."""
    config, material = subject.material.experiment.config.evaluate, subject.material
    frozen = {
        "zero_shot": subject.reads_text,
        "zero_shot_reports": subject.reads_text and "zero_shot_reports" in config.protocols,
        "linear_probe": 1.0 in config.fractions,
    }
    if frozen["zero_shot_reports"]:
        frozen["zero_shot_reports"] = subject.bank is not None
    judged = [name for name in config.protocols if frozen.get(name)]
    if config.conditions and not (judged and "corrected" in config.rules):
        print(
            f"{subject.name}: no harder records: they are for zero_shot and for linear_probe with "
            "all labels (fractions 1), under the corrected rule"
        )
        return
    everything = "all" in config.conditions
    for name in material.conditions if everything else config.conditions:
        if everything and name == "12 leads":
            continue
        try:
            harder = material.conditions[name].apply(material.experiment.test)
        except UserError as error:
            if not everything:
                raise
            print(f"{name}: left out, {error}")
            continue
        for protocol, task in itertools.product(judged, config.tasks):
            fit, fraction = FROZEN[protocol]
            fitted = fit(subject, task, "corrected")
            yield scoring.predictions(
                subject,
                task,
                protocol,
                "corrected",
                fitted,
                fraction=fraction,
                test=harder,
                condition=name,
            )
        subject.forget(harder)


def _knn(subject: Subject, task: str) -> Iterator[Predictions]:
    fitted = scoring.fit_knn(subject, task, "corrected")
    yield scoring.predictions(subject, task, "knn", "corrected", fitted, fraction=1.0)


def _finetune(subject: Subject, task: str) -> Iterator[Predictions]:
    asked = subject.material.experiment.config.evaluate
    for fraction, leads in itertools.product(asked.finetune_fractions, asked.finetune_leads):
        yield from _trained_on(subject, task, "finetune", fraction, leads)


def _supervised(subject: Subject, task: str) -> Iterator[Predictions]:
    if subject.name == "random":
        yield from _trained_on(subject, task, "supervised", 1.0)


def _trained_on(
    subject: Subject, task: str, protocol: str, fraction: float, leads: int = 12
) -> Iterator[Predictions]:
    """A network for each rule, trained on the records and labels that it judges."""
    encoder = "supervised" if protocol == "supervised" else subject.name

    def scored(rule: str) -> Iterator[Predictions]:
        fitted = scoring.fit_finetune(subject, task, rule, fraction, leads)
        condition = "" if leads == 12 else f"trained on {leads} lead{'s' if leads > 1 else ''}"
        asked = functools.partial(scoring.predictions, subject, task, protocol, rule, fitted)
        yield asked(fraction=fraction, encoder=encoder, condition=condition)

    config = subject.material.experiment.config.evaluate
    rules = [rule for rule in config.finetune_rules if rule in config.rules]
    yield from _by_rule(subject, task, scored, rules)


def _identify(subject: Subject, task: str) -> Iterator[Predictions]:
    """Has no task: see `tabulate.identification_rows`."""
    del subject, task
    yield from ()


PROTOCOLS: dict[str, Callable[[Subject, str], Iterator[Predictions]]] = {
    "zero_shot": _zero_shot,
    "zero_shot_reports": _zero_shot_reports,
    "own_report": _own_report,
    "linear_probe": _linear_probe,
    "attention_probe": _attention_probe,
    "knn": _knn,
    "finetune": _finetune,
    "supervised": _supervised,
    identify.PROTOCOL: _identify,
    "delineate": lambda subject, task: iter(()),  # of no label set: see `delineate.rows`
}


# Protocols that are judged on harder records, too: how they are fitted, and to which share.
FROZEN: dict[str, tuple[Callable[[Subject, str, str], scoring.Fitted], float | None]] = {
    "zero_shot": (scoring.fit_zero_shot, None),
    "zero_shot_reports": (
        lambda subject, task, _: scoring.fit_zero_shot_reports(subject, task),
        None,
    ),
    "linear_probe": (scoring.fit_linear_probe, 1.0),
}
