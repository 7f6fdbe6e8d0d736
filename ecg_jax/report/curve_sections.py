"""The sections of figures that are drawn from predictions."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures.calibration import Platt, drawable, platt
from ecg_jax.evaluation.figures.predictions import Predictions
from ecg_jax.report import curves, gather
from ecg_jax.report.content import Content
from ecg_jax.report.curve_figures import calibration_figure, encoder_legend, ranking_figure
from ecg_jax.report.gather import ENCODERS, PROTOCOLS
from ecg_jax.report.map_figures import MOST_CLASSES, confusion_figure
from ecg_jax.report.markup import Markup, element, join
from ecg_jax.report.tables import scroll

MOST_ENCODERS = 4
_LOGITS = ("linear_probe", "finetune", "supervised")  # protocols whose scores are log odds


class Fold(NamedTuple):
    """Panels of one dataset, task and protocol, each with how many positives its class has."""

    name: str
    introduction: Markup
    panels: list[tuple[int, Markup]]


def shown(folds: Sequence[Fold], least: int) -> Markup:
    """A section of the panels of classes with at least so many positives."""
    unfolded = next((fold for fold in folds if fold.panels), None)
    parts = []
    for fold in folds:
        panels = [figure for positives, figure in fold.panels if positives >= least]
        body = [fold.introduction]
        if left_out := len(fold.panels) - len(panels):
            why = f"they have fewer than {least:,} positives, and the page has no room for all"
            body.append(element("p", f"Left out are {left_out} more classes: {why}."))
        body.append(element("div", *panels, class_="panels") if panels else Markup(""))
        parts.append(_details(fold.name, join(body), unfolded=fold is unfolded))
    return join(parts)


def fewest(folds: Sequence[Fold], excess: int) -> int:
    """How many positives a class must have for its panels to stay, so that the page is smaller by
    `excess` bytes."""
    if excess <= 0:
        return 0
    excess += 200 * len(folds)  # the sentences that say so
    sizes = Counter()
    for positives, figure in (panel for fold in folds for panel in fold.panels):
        sizes[positives] += len(figure.encode())
    least = 0
    for positives in sorted(sizes):
        if excess > 0:
            least = positives + 1
        excess -= sizes[positives]
    return least


def ranking(content: Content) -> list[Fold]:
    """ROC and precision-recall curves of each class, the encoders over each other."""
    folds = []
    for first, group in _groups(content.predictions, "corrected"):
        by_encoder = {p.encoder: p for p in group}
        names = gather.ordered(by_encoder, ENCODERS)[:MOST_ENCODERS]
        panels = []
        for k in _classes(first):
            y, scores = first.y[:, k], {name: by_encoder[name].score[:, k] for name in names}
            panels.append((int(y.sum()), ranking_figure(first.classes[k], y, scores)))
        folds.append(Fold(_name(first), join([encoder_legend(names), _undrawn(first)]), panels))
    return folds


def calibration(content: Content) -> list[Fold]:
    """Reliability diagrams of the trained encoder's classes."""
    folds = []
    for first, group in _groups(content.predictions, "corrected"):
        trained = next((p for p in group if p.encoder in ("trained", "supervised")), first)
        fitted = next((v for v in content.validation if _same(v) == _same(trained)), None)
        if fitted is None and trained.protocol not in _LOGITS:
            note = "Scores of this protocol are no probabilities, and none of validation are here."
            folds.append(Fold(_name(trained), element("p", note), []))
            continue
        panels = []
        for k in _classes(trained):
            y, probability = trained.y[:, k], _probability(trained, fitted, k)
            if probability is not None:
                figure = calibration_figure(trained.classes[k], y, probability)
                panels.append((int(y.sum()), figure))
        how = (
            "Probabilities: the sigmoid of the logits."
            if fitted is None
            else "Probabilities: a logistic regression of each class on its score (Platt scaling), "
            "fitted on validation."
        )
        why = "Whiskers: 95 % intervals (Wilson). Under each diagram: how many records."
        introduction = join([element("p", f"{how} {why}"), _undrawn(trained)])
        folds.append(Fold(_name(trained), introduction, panels))
    return folds


def confusion(content: Content) -> Markup:
    """Confusion matrices of records with one label: under the corrected rule, whose scores are made
    comparable on validation, and then under the paper's. Cosines with the prompts of two classes
    differ for all records alike, so that a class may never have the highest."""
    trained = [p for p in content.predictions if p.encoder in ("trained", "supervised")]
    chosen: dict[tuple, Predictions] = {}
    for rule in ("corrected", "paper"):
        for first, _ in _groups(trained, rule):
            chosen[first.dataset, first.task, first.protocol, rule] = first
    parts = []
    for p in chosen.values():
        score, highest = _comparable(content, p)
        count = curves.confusion(p.y, score)
        many = len(p.classes) > MOST_CLASSES
        note = (
            f"{int(count.sum()):,} of {len(p.y):,} records have one label; the prediction is the "
            f"class with the highest {highest} ({p.rule} rule)."
        )
        if many:
            note += f" Not drawn: {len(p.classes)} classes."
        picture = Markup("")
        if count.any() and not many:
            label = f"{p.dataset} {p.task}: confusion matrix"
            picture = scroll(confusion_figure(count, p.classes), label)
        body = join([element("p", note), picture])
        parts.append(_details(f"{_name(p)}, {p.rule} rule", body, unfolded=not parts))
    return join(parts)


def _comparable(content: Content, p: Predictions) -> tuple[np.ndarray, str]:
    """Scores [N, K] that classes are compared by, and what they are called."""
    fitted = next((v for v in content.validation if _same(v) == _same(p)), None)
    if p.rule != "corrected" or p.protocol in _LOGITS or fitted is None:
        return p.score, "score"
    columns = [_probability(p, fitted, k) for k in range(len(p.classes))]
    unknown = np.full(len(p.y), np.nan)
    found = np.stack([unknown if c is None else c for c in columns], axis=1)
    return found, "probability, as fitted on validation"


def _groups(
    predictions: Sequence[Predictions], rule: str
) -> Iterator[tuple[Predictions, list[Predictions]]]:
    """For each dataset, task and protocol, the predictions on unchanged records with the largest
    fraction of labels: the one to name it by, and all encoders', one each.

    Raises:
      UserError: encoders of one group differ in their classes or records.
    """
    own = [p for p in predictions if p.rule == rule and not p.condition]
    for key in dict.fromkeys((p.dataset, p.task, p.protocol) for p in own):
        group = [p for p in own if (p.dataset, p.task, p.protocol) == key]
        largest = max(p.fraction or 0 for p in group)
        group = [p for p in group if (p.fraction or 0) == largest]
        place = gather.ordered((p.encoder for p in group), ENCODERS)
        group = [next(p for p in group if p.encoder == name) for name in place]
        for other in group[1:]:
            same = np.array_equal(other.record_id, group[0].record_id)
            if not (same and list(other.classes) == list(group[0].classes)):
                raise UserError(
                    f"report: predictions of {' '.join(key)} by {group[0].encoder} and "
                    f"{other.encoder} are not of the same records and classes"
                )
        yield group[0], group


def _same(p: Predictions) -> tuple:
    return p.dataset, p.task, p.protocol, p.encoder, p.rule, p.fraction, p.condition


def _classes(p: Predictions) -> list[int]:
    """Columns of the classes that can be drawn: of many those with most positives."""
    able = [k for k in range(len(p.classes)) if drawable(p.y[:, k], p.score[:, k])]
    most = sorted(able, key=lambda k: -int(p.y[:, k].sum()))[:MOST_CLASSES]
    return sorted(most)


def _undrawn(p: Predictions) -> Markup:
    shown = set(_classes(p))
    names = [name for k, name in enumerate(p.classes) if k not in shown]
    if not names:
        return Markup("")
    why = "without positives, negatives or scores" + (
        f", or not among the {MOST_CLASSES} with most positives"
        if len(shown) == MOST_CLASSES
        else ""
    )
    return element("p", f"Not drawn ({why}): {', '.join(names)}.")


def _probability(p: Predictions, fitted: Predictions | None, k: int) -> np.ndarray | None:
    if fitted is None:
        return Platt(1.0, 0.0)(p.score[:, k])
    if list(fitted.classes) != list(p.classes):
        raise UserError(f"report: validation predictions of {p.task} are of other classes")
    y, score = fitted.y[:, k], fitted.score[:, k]
    return platt(y, score)(p.score[:, k]) if drawable(y, score) else None


def _name(p: Predictions) -> str:
    name = f"{p.dataset} {p.task}, {PROTOCOLS.get(p.protocol, p.protocol)}"
    return ", ".join(filter(None, [name, gather.share(p.fraction)]))


def _details(name: str, body: Markup, unfolded: bool) -> Markup:
    return element("details", element("summary", name), body, open=unfolded)
