"""A 12-lead ECG as clinicians read it: 25 mm/s, 10 mm/mV, three rows of four leads of 2.5 s each,
and lead II over the whole 10 s.

The picture's user unit is the millimetre of the paper. Rows are nested pictures whose y = 0 is the
isoelectric line, so a trace is what it is on paper: x = 25 t, y = -10 u.
"""

import math

import numpy as np

from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError
from ecg_jax.report.markup import Markup, element, join, path, svg

SPEED = 25.0  # mm/s
GAIN = 10.0  # mm/mV
LAYOUT = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
RHYTHM = "II"
SECONDS = 10.0
_COLUMN = SECONDS / 4

# Millimetres. Margins and rows are multiples of 5, so that isoelectric lines lie on the bold grid.
_LEFT, _RIGHT, _TOP, _BOTTOM = 15, 5, 5, 10
_WIDTH = _LEFT + int(SECONDS * SPEED) + _RIGHT
_LEAST_UP, _LEAST_DOWN, _MOST = 15, 10, 40
_NAME_WIDTH, _NAME_HEIGHT = 12, 6  # what a lead's name takes of its row's upper left corner

# With fallbacks, so that the picture also stands without the page's style.
_PAPER = "fill:var(--ecg-paper,#fffafa)"
_FINE = "fill:none;stroke:var(--ecg-fine,#f8dada);stroke-width:.1"
_BOLD = "fill:none;stroke:var(--ecg-bold,#eeb0b0);stroke-width:.2"
TRACE = "fill:none;stroke:var(--ecg-trace,#111);stroke-width:.35;stroke-linejoin:round"
_ABSENT = "fill:none;stroke:var(--ecg-trace,#111);stroke-width:.25;stroke-dasharray:1 1.5"
_TEXT = (
    "fill:var(--ecg-trace,#111);stroke:var(--ecg-paper,#fffafa);stroke-width:.8;paint-order:stroke;"
    "font-family:system-ui,sans-serif"
)


def ecg_figure(ecg: np.ndarray, rate: int, lead_mask: np.ndarray, title: str) -> Markup:
    """Draws the first 10 s of a record; each lead's median is its isoelectric line.

    Rows are as high as their leads need, up to 4 mV from the line; a trace that leaves its row is
    cut there and its name says so. A lead that the record lacks is a dashed line with a note.

    Args:
      ecg: int16 [T, 12], microvolts, leads in the order of `LEADS`.
      rate: Hz.
      lead_mask: bool [12].
      title: what the picture is, in words.

    Raises:
      UserError: an array of another shape, no sample, or a rate that is not positive.
    """
    ecg, lead_mask = np.asarray(ecg), np.asarray(lead_mask, bool)
    if ecg.ndim != 2 or ecg.shape[1] != len(LEADS) or not len(ecg) or rate <= 0:
        raise UserError(f"an ECG to draw must be [samples, 12] at a positive rate, not {ecg.shape}")
    if lead_mask.shape != (len(LEADS),):
        raise UserError(f"lead_mask must say of 12 leads if they are there, not {lead_mask.shape}")
    seconds = np.arange(len(ecg)) / rate
    millivolts = (ecg - np.median(ecg, axis=0)) / 1000
    rows = [[(lead, _COLUMN * i, _COLUMN) for i, lead in enumerate(row)] for row in LAYOUT]
    rows.append([(RHYTHM, 0.0, SECONDS)])
    y, drawn = _TOP, []
    for row in rows:
        parts = [
            _Part(*piece, seconds, millivolts[:, LEADS.index(piece[0])], lead_mask) for piece in row
        ]
        up, down = _extent(parts)
        drawn.append(_row(parts, y, up, down))
        y += up + down
    height = y + _BOTTOM
    scale = f"{SPEED:g} mm/s   {GAIN:g} mm/mV   {rate} Hz"
    size = dict(width=f"{_WIDTH}mm", height=f"{height}mm", class_="ecg")
    return svg(
        title,
        _WIDTH,
        height,
        paper(_WIDTH, height),
        *drawn,
        text(scale, _LEFT, height - 3, 3.5),
        **size,
    )


class _Part:
    """The stretch of one lead that a row shows."""

    def __init__(self, lead, start, duration, seconds, millivolts, lead_mask):
        self.lead, self.start, self.duration = lead, start, duration
        self.there = bool(lead_mask[LEADS.index(lead)])
        inside = (seconds > start - 1e-6) & (seconds < start + duration + 1e-6)
        self.x = (seconds[inside] - start) * SPEED
        self.y = -millivolts[inside] * GAIN if self.there else np.zeros(0)


def _extent(parts: list[_Part]) -> tuple[int, int]:
    """Millimetres above and below the isoelectric line that a row needs, in steps of 5."""
    y = np.concatenate([part.y for part in parts])
    if not len(y):
        return _LEAST_UP, _LEAST_DOWN
    up, down = (5 * math.ceil(max(0.0, value) / 5) for value in (-y.min(), y.max()))
    up, down = min(max(up, _LEAST_UP), _MOST), min(max(down, _LEAST_DOWN), _MOST)
    named = np.concatenate([part.y[part.x < _NAME_WIDTH] for part in parts if part.there])
    while up < _MOST and (named < _NAME_HEIGHT - up).any():  # a wave would cross the name
        up += 5
    return up, down


def _row(parts: list[_Part], top: int, up: int, down: int) -> Markup:
    """A row's calibration pulse (1 mV, 0.2 s) and its leads."""
    pulse = element("path", d=f"M{_LEFT - 12} {top + up}h3v-{GAIN:g}h5v{GAIN:g}h3", style=TRACE)
    return join([pulse, *(_lead(part, top, up, down) for part in parts)])


def _lead(part: _Part, top: int, up: int, down: int) -> Markup:
    width = part.duration * SPEED
    name, children = part.lead, []
    if not part.there:
        name = f"{part.lead}: not recorded"
        children.append(element("path", d=f"M0 0h{width:g}", style=_ABSENT))
    elif len(part.x):
        if (part.y < -up).any() or (part.y > down).any():
            name = f"{part.lead} (cut at the row's edge)"
        children.append(element("path", d=path(part.x, part.y), style=TRACE))
    if part.start:
        children.append(element("path", d="M0-3v6", style=TRACE))
    children.append(text(name, 1.5, 4.5 - up, 4, font_weight="600"))
    return element(
        "svg",
        *children,
        x=_LEFT + part.start * SPEED,
        y=top,
        width=width,
        height=up + down,
        viewBox=f"0 {-up} {width:g} {up + down}",
        overflow="hidden",
        data_lead=part.lead,
    )


def paper(width: int, height: int) -> Markup:
    """Lines at every millimetre, and bolder ones at every fifth."""

    def lines(places_x, places_y) -> str:
        vertical = "".join(f"M{x} 0v{height}" for x in places_x)
        return vertical + "".join(f"M0 {y}h{width}" for y in places_y)

    fine = lines(*([p for p in range(end) if p % 5] for end in (width, height)))
    bold = lines(range(0, width + 1, 5), range(0, height + 1, 5))
    return join(
        [
            element("rect", width=width, height=height, style=_PAPER),
            element("path", d=fine, style=_FINE),
            element("path", d=bold, style=_BOLD),
        ]
    )


def text(words: str, x: float, y: float, size: float, **attributes: object) -> Markup:
    style = {"style": f"font-size:{size:g}px;{_TEXT}", "xml:space": "preserve", **attributes}
    return element("text", words, x=x, y=y, **style)
