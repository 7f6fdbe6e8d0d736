"""Figures of curves: ROC and precision-recall, calibration, training."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecg_jax.evaluation.figures.calibration import drawable, reliability
from ecg_jax.evaluation.figures.results import counted
from ecg_jax.report import chart, curves
from ecg_jax.report.chart import Panel, axes, line, staircase
from ecg_jax.report.gather import ENCODERS
from ecg_jax.report.markup import MINUS, Markup, element, number, svg

_UNIT = (0.0, 0.5, 1.0)
_NOISY = 600  # points of a curve over the steps, which has no shape to keep but its noise
_ROC, _PRECISION = Panel(40, 8, 118, 118), Panel(208, 8, 118, 118)
_RELIABILITY, _COUNTS = Panel(44, 8, 220, 220), Panel(44, 240, 220, 40)
_STROKES = {
    "trained": "thick c0",
    "random": "dashed c1",
    "supervised": "fine c2",
    "shuffled": "dotted c3",
}
_SEEDS = ("fine c0", "dashed c1", "dotted c2", "fine c3")


def ranking_figure(name: str, y: np.ndarray, scores: Mapping[str, np.ndarray]) -> Markup:
    """ROC and precision-recall curve of one class, one line per encoder.

    Args:
      name: of the class.
      y: bool [N].
      scores: encoder -> float [N]; the first is drawn above the others.
    """
    prevalence = float(np.mean(y))
    level = line(_PRECISION, np.array([0, 1]), np.array([prevalence] * 2), "chance")
    parts = [element("use", href="#ranking-axes"), level]
    for encoder, score in reversed(list(scores.items())):
        if drawable(y, score):
            parts.append(line(_ROC, *curves.roc(y, score), _stroke(encoder)))
            steps = staircase(*curves.precision_recall(y, score))
            parts.append(line(_PRECISION, *steps, _stroke(encoder)))
    positive = int(np.sum(y))
    title = f"{name}: ROC and precision-recall curves of {', '.join(scores)}"
    caption = f"{positive:,} of {len(y):,} positive ({prevalence:.3f})"
    return _figure(svg(title, 336, 158, *parts), name, caption)


def shared_axes() -> Markup:
    """What all panels of `ranking_figure` and `calibration_figure` have in common, once a page."""
    unit = np.array([0, 1])
    ranking = [
        axes(_ROC, _UNIT, _UNIT, f"1 {MINUS} specificity", "sensitivity"),
        axes(_PRECISION, _UNIT, _UNIT, "recall", "precision"),
        line(_ROC, unit, unit, "chance"),
    ]
    calibration = [
        axes(_RELIABILITY, _UNIT, _UNIT, "", "observed frequency", x_names=False),
        axes(_COUNTS, _UNIT, (), "predicted probability", "records"),
        line(_RELIABILITY, unit, unit, "chance"),
    ]
    shared = (("ranking-axes", ranking), ("calibration-axes", calibration))
    groups = (element("g", *parts, id=name) for name, parts in shared)
    return element("svg", element("defs", *groups), width=0, height=0, aria_hidden="true")


def encoder_legend(encoders: Sequence[str]) -> Markup:
    """What the lines of `ranking_figure` stand for."""
    items = [(ENCODERS.get(encoder, encoder), _stroke(encoder)) for encoder in encoders]
    return _legend([*items, ("chance, prevalence", "chance")])


def seed_legend(history: Sequence[dict[str, Any]]) -> Markup:
    """What the lines of `training_figures` stand for; nothing where there is one seed."""
    seeds = _seeds(history)
    if len(seeds) < 2:
        return Markup("")
    return _legend([(f"seed {seed}", stroke) for seed, stroke in seeds.items()])


def _legend(items: Sequence[tuple[str, str]]) -> Markup:
    spans = []
    for name, stroke in items:
        mark = svg(name, 30, 8, element("path", d="M1 4h28", class_=stroke))
        spans.append(element("span", mark, " ", name))
    return element("p", *spans, class_="legend")


def calibration_figure(name: str, y: np.ndarray, probability: np.ndarray) -> Markup:
    """Reliability diagram of one class over the histogram of its probabilities."""
    r = reliability(y, probability)
    panel, most = _RELIABILITY, max(1, int(r.count.max()))
    counts = dataclasses.replace(_COUNTS, y=(0, most))
    bars = []
    for i, n in enumerate(r.count.tolist()):
        if n:
            top = float(counts.at_y(n))
            bars.append(
                element(
                    "rect",
                    element("title", f"{i / 10:.1f} to {(i + 1) / 10:.1f}: {counted(n)}"),
                    x=float(counts.at_x(i / 10)) + 0.5,
                    y=top,
                    width=21.0,
                    height=counts.top + counts.height - top,
                    class_="bar c0",
                )
            )
    whiskers = "".join(
        f"M{number(a)} {number(b)}V{number(c)}"
        for a, b, c in zip(
            panel.at_x(r.predicted), panel.at_y(r.low), panel.at_y(r.high), strict=True
        )
    )
    parts = [
        element("use", href="#calibration-axes"),
        element("path", d=whiskers, class_="whisker c0"),
        line(panel, r.predicted, r.observed, "curve fine c0"),
        chart.marks(panel, r.predicted, r.observed, 0),
        axes(counts, (), (0, most)),
        *bars,
    ]
    title = f"{name}: observed frequency against predicted probability, and how many records"
    caption = f"Brier {r.brier:.3f} (prevalence alone {r.brier_prevalence:.3f})"
    return _figure(svg(title, 274, 312, *parts), name, caption)


def training_figures(history: Sequence[dict[str, Any]]) -> list[Markup]:
    """One figure for each number in the rows of metrics.jsonl, over the steps; a line per seed. One
    that was written once shows no course, and is left out."""
    names = dict.fromkeys(
        name
        for row in history
        for name, value in row.items()
        if name not in ("step", "seed") and isinstance(value, int | float)
    )
    written = Counter((name, row.get("seed")) for row in history for name in row)
    courses = {name for (name, _), times in written.items() if times > 1}
    shown = [n for n in names if n.rsplit("/", 1)[-1] != "select" and n in courses]
    shown.sort(key=lambda name: (not name.startswith("validation/"), name != "loss"))
    return [_training_figure(name, history) for name in shown]


def _training_figure(name: str, history: Sequence[dict[str, Any]]) -> Markup:
    rows = [row for row in history if isinstance(row.get(name), int | float)]
    step = np.array([row["step"] for row in rows], float)
    value = np.array([row[name] for row in rows], float)
    panel = Panel(48, 8, 270, 130, (0.0, max(1.0, step.max())), chart.span(value))
    parts = [axes(panel, chart.ticks(*panel.x), chart.ticks(*panel.y), "step")]
    seeds = _seeds(history)
    for seed, stroke in seeds.items():
        own = np.array([row.get("seed") == seed for row in rows])
        if own.any():
            parts.append(line(panel, step[own], value[own], stroke, most=_NOISY))
    readable = name.replace("/", ": ").replace("_", " ")
    caption = f"last {value[-1]:.4g}" if len(seeds) == 1 else f"{len(seeds)} seeds"
    if name.startswith("validation/"):
        best = int(np.argmax(np.where(np.isfinite(value), value, -np.inf)))
        parts.append(chart.marks(panel, step[best : best + 1], value[best : best + 1], 3))
        caption = f"highest {value[best]:.3f} at step {step[best]:,.0f}"
    return _figure(svg(f"{readable} over the training steps", 330, 170, *parts), readable, caption)


def _seeds(history: Sequence[dict[str, Any]]) -> dict[Any, str]:
    seeds = dict.fromkeys(row.get("seed") for row in history)
    return {seed: f"curve {_SEEDS[i % len(_SEEDS)]}" for i, seed in enumerate(seeds)}


def _stroke(encoder: str) -> str:
    return f"curve {_STROKES.get(encoder, 'fine c5')}"


def _figure(picture: Markup, name: str, caption: str) -> Markup:
    label = element("figcaption", element("strong", name), " ", element("span", caption))
    return element("figure", label, picture)
