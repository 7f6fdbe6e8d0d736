"""The section of delineated records: lead II on its paper, with the waves as annotated above it and
as found below it."""

from collections.abc import Sequence

import numpy as np

from ecg_jax.evaluation.figures import waves as figures
from ecg_jax.report.content import Waves
from ecg_jax.report.ecg_figure import GAIN, SECONDS, SPEED, TRACE, paper, text
from ecg_jax.report.markup import Markup, element, join, path, svg
from ecg_jax.report.tables import scroll

_LEFT, _RIGHT, _BAND, _UP, _DOWN, _FOOT = 25, 5, 9, 20, 15, 9  # mm
_COLOURS = {"P": "#7b6cd9", "QRS": "#d9822b", "T": "#2b9c86"}
_EXPLANATION = (
    "Lead II at 25 mm/s and 10 mm/mV. The upper band is what cardiologists marked, the lower one "
    "what was found, a line each for P, QRS and T. Where the upper one is grey nothing was "
    "marked, and what is found there counts neither as right nor as wrong."
)
_UNMARKED = "fill:#888;opacity:.25"


def waves(given: Sequence[Waves]) -> Markup:
    """A drawing of each record."""
    if not given:
        return Markup("")
    parts = [element("p", _EXPLANATION)]
    for one in given:
        name = f"Record {one.record_id} of {one.dataset}"
        caption = element("p", f"{name}. {one.note}.")
        parts.append(element("article", caption, scroll(figure(one), f"waves of {name}")))
    return join(parts)


def figure(one: Waves) -> Markup:
    """The first 10 s, as `ecg_figure` draws a lead."""
    shown = min(len(one.ecg), round(SECONDS * one.rate))
    x = np.arange(shown) / one.rate * SPEED
    y = -(one.ecg[:shown] - np.median(one.ecg[:shown])) / 1000 * GAIN
    width, top = _LEFT + round(SECONDS * SPEED) + _RIGHT, 5
    line = top + _BAND + _UP
    height = line + _DOWN + _BAND + _FOOT
    trace = element(
        "svg",
        element("path", d=path(x, np.clip(y, -_UP, _DOWN)), style=TRACE),
        x=_LEFT,
        y=line - _UP,
        width=width - _LEFT - _RIGHT,
        height=_UP + _DOWN,
        viewBox=f"0 {-_UP} {width - _LEFT - _RIGHT} {_UP + _DOWN}",
    )
    bands = [
        _band("marked", one.true[:shown], one.known[:shown], one.rate, top),
        _band("found", one.found[:shown], None, one.rate, line + _DOWN),
    ]
    title = f"Record {one.record_id}, lead II: waves as annotated and as found"
    size = dict(width=f"{width}mm", height=f"{height}mm", class_="ecg")
    scale = f"{SPEED:g} mm/s   {GAIN:g} mm/mV   {one.rate} Hz"
    foot = text(scale, _LEFT, height - 2, 3.5)
    return svg(title, width, height, paper(width, height), trace, *bands, foot, **size)


def _band(name: str, segments: np.ndarray, known: np.ndarray | None, rate: int, top: int) -> Markup:
    """A line for each wave with a rectangle for every one; grey where nothing is annotated."""
    parts = [text(name, 1.5, top + _BAND / 2 + 1, 3.5)]

    def place(first: int, last: int) -> dict:
        left, end = first / rate * SPEED, (last + 1) / rate * SPEED
        return dict(x=_LEFT + left, width=end - left)

    if known is not None:
        for run in figures.runs(~known):
            parts.append(element("rect", **place(*run), y=top, height=_BAND, style=_UNMARKED))
        segments = np.where(known, segments, 0)
    each = _BAND / 3
    for i, (wave, colour) in enumerate(_COLOURS.items()):
        y = top + i * each
        parts.append(text(wave, _LEFT - 8, y + each - 0.6, 2.6))
        for first, last in figures.runs(segments == figures.NAMES.index(wave)):
            where = dict(place(first, last), y=y + 0.2, height=each - 0.4)
            parts.append(element("rect", **where, style=f"fill:{colour}"))
    return join(parts)
