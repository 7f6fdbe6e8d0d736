"""The sections of figures that are drawn from predictions."""

from collections.abc import Iterator, Sequence

import numpy as np

from ecg_jax.errors import UserError
from ecg_jax.evaluation.predictions import Predictions
from ecg_jax.evaluation.report import curves, gather
from ecg_jax.evaluation.report.content import Content
from ecg_jax.evaluation.report.curve_figures import calibration_figure, legend, ranking_figure
from ecg_jax.evaluation.report.gather import ENCODERS, PROTOCOLS
from ecg_jax.evaluation.report.map_figures import MOST_CLASSES, confusion_figure
from ecg_jax.evaluation.report.markup import Markup, element, join
from ecg_jax.evaluation.report.tables import scroll

MOST_ENCODERS = 4
_LOGITS = ("linear_probe", "finetune", "supervised")  # protocols whose scores are log odds


def ranking(content: Content) -> Markup:
    """ROC and precision-recall curves of each class, the encoders over each other."""
    parts = []
    for first, group in _groups(content.predictions, "corrected"):
        by_encoder = {p.encoder: p for p in group}
        names = gather.ordered(by_encoder, ENCODERS)[:MOST_ENCODERS]
        figures = []
        for k in _classes(first):
            scores = {name: by_encoder[name].score[:, k] for name in names}
            figures.append(ranking_figure(first.classes[k], first.y[:, k], scores))
        body = join([legend(names), _left_out(first), _panels(figures)])
        parts.append(_fold(first, body, unfolded=not parts))
    return join(parts)


def calibration(content: Content) -> Markup:
    """Reliability diagrams of the trained encoder's classes."""
    parts = []
    for first, group in _groups(content.predictions, "corrected"):
        trained = next((p for p in group if p.encoder in ("trained", "supervised")), first)
        fitted = next((v for v in content.validation if _same(v) == _same(trained)), None)
        if fitted is None and trained.protocol not in _LOGITS:
            note = "Scores of this protocol are no probabilities, and none of validation are here."
            parts.append(_fold(trained, element("p", note), unfolded=False))
            continue
        figures = []
        for k in _classes(trained):
            probability = _probability(trained, fitted, k)
            if probability is not None:
                figures.append(calibration_figure(trained.classes[k], trained.y[:, k], probability))
        how = (
            "Probabilities: the sigmoid of the logits."
            if fitted is None
            else "Probabilities: a logistic regression of each class on its score (Platt scaling), "
            "fitted on validation."
        )
        why = "Whiskers: 95 % intervals (Wilson). Under each diagram: how many records."
        body = [element("p", f"{how} {why}"), _left_out(trained), _panels(figures)]
        parts.append(_fold(trained, join(body), unfolded=not parts))
    return join(parts)


def confusion(content: Content) -> Markup:
    """Confusion matrices of records with one label, under the paper rule where it was evaluated."""
    trained = [p for p in content.predictions if p.encoder in ("trained", "supervised")]
    chosen: dict[tuple, Predictions] = {}
    for rule in ("corrected", "paper"):
        for first, _ in _groups(trained, rule):
            chosen[first.dataset, first.task, first.protocol] = first
    parts = []
    for p in chosen.values():
        count = curves.confusion(p.y, p.score)
        many = len(p.classes) > MOST_CLASSES
        note = (
            f"{int(count.sum()):,} of {len(p.y):,} records have one label; the prediction is the "
            f"class with the highest score ({p.rule} rule)."
        )
        if many:
            note += f" Not drawn: {len(p.classes)} classes."
        picture = Markup("")
        if count.any() and not many:
            label = f"{p.dataset} {p.task}: confusion matrix"
            picture = scroll(confusion_figure(count, p.classes), label)
        parts.append(_fold(p, join([element("p", note), picture]), unfolded=not parts))
    return join(parts)


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
    able = [k for k in range(len(p.classes)) if curves.drawable(p.y[:, k], p.score[:, k])]
    most = sorted(able, key=lambda k: -int(p.y[:, k].sum()))[:MOST_CLASSES]
    return sorted(most)


def _left_out(p: Predictions) -> Markup:
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
        return curves.Platt(1.0, 0.0)(p.score[:, k])
    if list(fitted.classes) != list(p.classes):
        raise UserError(f"report: validation predictions of {p.task} are of other classes")
    y, score = fitted.y[:, k], fitted.score[:, k]
    return curves.platt(y, score)(p.score[:, k]) if curves.drawable(y, score) else None


def _panels(figures: list[Markup]) -> Markup:
    return element("div", *figures, class_="panels")


def _fold(p: Predictions, body: Markup, unfolded: bool) -> Markup:
    name = f"{p.dataset} {p.task}, {PROTOCOLS.get(p.protocol, p.protocol)}"
    name = ", ".join(filter(None, [name, gather.share(p.fraction)]))
    return element("details", element("summary", name), body, open=unfolded)
