"""Figures of classes: confusion matrix, prompts against classes, map of records, intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ecg_jax.evaluation.figures.results import counted
from ecg_jax.report import chart
from ecg_jax.report.chart import Panel, axes, marks, text
from ecg_jax.report.content import Embedding, PromptMap
from ecg_jax.report.markup import UNKNOWN, Markup, element, join, number, signed, svg

# Cells are coloured up to this opacity, so that numbers on them keep their contrast.
_DARKEST = 0.5
_SHADES = 20  # of a picture without numbers
MOST_CLASSES = 24  # in a figure that prints a number or a name for each


def confusion_figure(count: np.ndarray, classes: Sequence[str]) -> Markup:
    """Counts of (true, predicted); a cell is as dark as its share of its true class.

    Args:
      count: int [K, K].
      classes: K names.
    """
    K, cell = len(classes), 46 if len(classes) <= 9 else 30
    names = max(len(name) for name in classes) * 7.8
    left, top = names + 24, names + 22 if K > 9 else 34
    share = count / np.maximum(count.sum(axis=1, keepdims=True), 1)
    parts = []
    for i in range(K):
        y = top + (i + 0.5) * cell
        parts.append(text(classes[i], left - 6, y + 4, anchor="end"))
        x = left + (i + 0.5) * cell
        if K > 9:
            turned = f"translate({number(x + 4)} {number(top - 6)}) rotate(-90)"
            parts.append(text(classes[i], 0, 0, transform=turned))
        else:
            parts.append(text(classes[i], x, top - 6, anchor="middle"))
        for j in range(K):
            parts.append(
                _cell(left + j * cell, top + i * cell, cell, int(count[i, j]), share[i, j])
            )
    middle = number(top + K * cell / 2)
    turned = f"rotate(-90 10 {middle})"
    parts.append(text("true", 10, float(middle), anchor="middle", class_="axis", transform=turned))
    parts.append(text("predicted", left + K * cell / 2, 11, anchor="middle", class_="axis"))
    width, height = left + K * cell + 4, top + K * cell + 4
    title = f"Confusion matrix: {int(np.trace(count))} of {int(count.sum())} records are right"
    return svg(title, width, height, *parts, style=f"width:{number(1.1 * width)}px;max-width:none")


def _cell(x: float, y: float, size: float, count: int, share: float) -> Markup:
    opacity = f"{_DARKEST * share:.2f}" if share else "0"
    box = element("rect", x=x, y=y, width=size, height=size, class_="cell c0", fill_opacity=opacity)
    if not count:
        return box
    middle = x + size / 2
    if size < 40:
        return join([box, text(str(count), middle, y + size / 2 + 4, anchor="middle")])
    return join(
        [
            box,
            text(str(count), middle, y + size / 2, anchor="middle"),
            text(f"{share:.0%}", middle, y + size / 2 + 13, anchor="middle", class_="small"),
        ]
    )


def prompt_table(prompts: PromptMap) -> Markup:
    """A row per prompt: cosine with each class, coloured by how far it lies above or below the
    prompt's mean. The prompt's own class is framed.

    Above `MOST_CLASSES` classes: the same picture without numbers, a row per class.
    """
    if len(prompts.classes) > MOST_CLASSES:
        return _prompt_picture(prompts)
    similarity = np.asarray(prompts.similarity, float)
    known = np.isfinite(similarity)
    deviation = _deviation(similarity)
    most = max(float(np.abs(deviation[known]).max(initial=0)), 1e-9)
    head = element("tr", _head("prompt"), *(_head(name) for name in prompts.classes))
    rows = []
    for i, prompt in enumerate(prompts.prompts):
        cells = []
        for k, name in enumerate(prompts.classes):
            own = "own" if name == prompts.prompt_class[i] else None
            if not known[i, k]:
                cells.append(element("td", UNKNOWN, class_=own))
                continue
            strength = deviation[i, k] / most
            kind = " ".join(filter(None, ["heat", "hot" if strength > 0 else "cold", own]))
            style = f"--share:{_DARKEST * 100 * abs(strength):.0f}%"
            cells.append(element("td", signed(similarity[i, k]), class_=kind, style=style))
        name = element("th", f"{prompts.prompt_class[i]}: ", prompt, scope="row")
        rows.append(element("tr", name, *cells))
    return element(
        "table", element("thead", head), element("tbody", *rows), class_="figures prompts"
    )


def _prompt_picture(prompts: PromptMap) -> Markup:
    """Mean over the prompts of a class, classes by classes."""
    owner = np.asarray(prompts.prompt_class)
    similarity = np.asarray(prompts.similarity, float)
    rows = [name for name in prompts.classes if (owner == name).any()]
    mean = np.array([similarity[owner == name].mean(axis=0) for name in rows])
    deviation = _deviation(mean)
    most = max(float(np.nanmax(np.abs(deviation), initial=0)), 1e-9)
    cell, left, top = 11.0, 62.0, 62.0
    parts = []
    for k, name in enumerate(prompts.classes):
        place = f"translate({number(left + (k + 0.5) * cell + 3)} {number(top - 4)}) rotate(-90)"
        parts.append(text(name, 0, 0, transform=place, class_="small"))
    shades: dict[tuple[int, str], list[str]] = {}
    for i, name in enumerate(rows):
        y = top + i * cell
        parts.append(text(name, left - 4, y + 8, anchor="end", class_="small"))
        for k in np.flatnonzero(np.isfinite(deviation[i])).tolist():
            strength = deviation[i, k] / most
            kind, box = "c0" if strength > 0 else "c1", _box(left + k * cell, y, cell)
            shades.setdefault((round(_SHADES * abs(strength)), kind), []).append(box)
            if prompts.classes[k] == name:
                shades.setdefault((0, "own"), []).append(box)
    for (shade, kind), boxes in sorted(shades.items(), key=lambda item: item[0][1] == "own"):
        opacity = f"{shade / _SHADES:.2f}"
        parts.append(element("path", d="".join(boxes), class_=f"cell {kind}", fill_opacity=opacity))
    width, height = left + len(prompts.classes) * cell + 4, top + len(rows) * cell + 4
    title = f"Prompts of {len(rows)} classes (rows) against records of each class (columns)"
    return svg(title, width, height, *parts, style=f"width:{number(1.2 * width)}px;max-width:none")


def _box(x: float, y: float, size: float) -> str:
    return f"M{number(x)} {number(y)}h{number(size)}v{number(size)}h{number(-size)}z"


def _deviation(similarity: np.ndarray) -> np.ndarray:
    """From the mean of each row's known values."""
    known = np.isfinite(similarity)
    total = np.where(known, similarity, 0).sum(axis=1, keepdims=True)
    return similarity - total / np.maximum(known.sum(axis=1, keepdims=True), 1)


def map_figure(embedding: Embedding) -> Markup:
    """Records as marks, those without a single label in the background."""
    xy, label = np.asarray(embedding.xy, float), np.asarray(embedding.label)
    panel = Panel(2, 2, 396, 316, chart.span(xy[:, 0]), chart.span(xy[:, 1]))
    frame = dict(x=panel.left, y=panel.top, width=panel.width, height=panel.height)
    parts = [element("rect", **frame, class_="frame")]
    finite = np.asarray(np.isfinite(xy).all(axis=1))
    others = xy[finite & (label < 0)]
    if len(others):
        points = zip(panel.at_x(others[:, 0]), panel.at_y(others[:, 1]), strict=True)
        data = "".join(f"M{number(x)} {number(y)}h0" for x, y in points)
        parts.append(element("path", d=data, class_="others"))
    for k in range(len(embedding.classes)):
        own = xy[finite & (label == k)]
        if len(own):
            parts.append(marks(panel, own[:, 0], own[:, 1], k, "outlined"))
    count = int(finite.sum())
    picture = svg(f"Map of {counted(count)} by class", 400, 320, *parts, class_="map")
    return join([_map_legend(embedding, finite), picture])


def _map_legend(embedding: Embedding, finite: np.ndarray) -> Markup:
    label = np.asarray(embedding.label)[finite]
    items = []
    for k, name in enumerate(embedding.classes):
        if (label == k).any():
            shape = f"M5 5{chart.mark_shape(k)}"
            mark = element("path", d=shape, class_=f"mark {chart.colour(k)}")
            items.append(_legend_item(name, int((label == k).sum()), mark))
    if (label < 0).any():
        dot = element("path", d="M5 5h0", class_="others")
        items.append(_legend_item("none or several", int((label < 0).sum()), dot))
    return element("p", *items, class_="legend")


def _legend_item(name: str, count: int, mark: Markup) -> Markup:
    return element("span", svg(name, 10, 10, mark), f" {name} ({count})")


class Level(NamedTuple):
    """One figure with its interval; NaN ends for none."""

    label: str
    value: float
    low: float
    high: float
    kind: int  # colour and mark


def interval_figure(title: str, levels: Sequence[Level], chance: float, x_label: str) -> Markup:
    """Figures under each other, each with its 95 % interval; chance is a dashed line."""
    known = [v for level in levels for v in level[1:4] if np.isfinite(v)]
    low = min([*known, chance if np.isfinite(chance) else 1.0])
    low, high = max(0.0, np.floor(low * 20 - 0.5) / 20), 1.0
    left = 14 + 6.0 * max(len(level.label) for level in levels)
    panel = Panel(left, 6, 180, 19.0 * len(levels), (low, high), (len(levels), 0))
    parts = [axes(panel, chart.ticks(low, high, 5), (), x_label)]
    if np.isfinite(chance):
        parts.append(chart.line(panel, np.array([chance] * 2), np.array(panel.y), "chance"))
    for i, level in enumerate(levels):
        y = float(panel.at_y(i + 0.5))
        parts.append(text(level.label, left - 8, y + 4, anchor="end"))
        if np.isfinite(level.low) and np.isfinite(level.high):
            ends = (number(float(panel.at_x(v))) for v in (level.low, level.high))
            data = "M{0} {2}H{1}".format(*ends, number(y))
            parts.append(element("path", d=data, class_=f"whisker {chart.colour(level.kind)}"))
        if np.isfinite(level.value):
            parts.append(marks(panel, np.array([level.value]), np.array([i + 0.5]), level.kind))
    height = panel.top + panel.height + 32
    return element("figure", svg(title, left + 194, height, *parts), class_="wide")


def _head(name: str) -> Markup:
    return element("th", name, scope="col")
