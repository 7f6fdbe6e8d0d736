"""Panels with linear axes: what every figure is put together from. Colours come from the page."""

import dataclasses
import heapq
import math
from collections.abc import Sequence

import numpy as np

from ecg_jax.report.markup import MINUS, Markup, element, join, number, path

POINTS = 150  # of a line, at most
CLOSE = 0.1  # user units, what coordinates are rounded to
COLOURS = 8  # classes c0 ... c7 of the page's style
MARKS = (
    "m-2.2 0a2.2 2.2 0 1 0 4.4 0a2.2 2.2 0 1 0-4.4 0z",  # disc
    "m-2-2h4v4h-4z",  # square
    "m0-2.7l2.5 4.3h-5z",  # triangle
    "m0-2.9l2.9 2.9l-2.9 2.9l-2.9-2.9z",  # diamond
    "m0 2.7l2.5-4.3h-5z",  # triangle on its tip
    "m-.8-2.6h1.6v1.8h1.8v1.6h-1.8v1.8h-1.6v-1.8h-1.8v-1.6h1.8z",  # plus
    "m-2.6-1h5.2v2h-5.2z",  # bar
    "m-1-2.6h2v5.2h-2z",  # upright bar
)


@dataclasses.dataclass(frozen=True)
class Panel:
    """A rectangle of the picture, `width` x `height` from (`left`, `top`), and its data range."""

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float] = (0.0, 1.0)
    y: tuple[float, float] = (0.0, 1.0)

    def at_x(self, x):
        return self.left + (np.asarray(x, float) - self.x[0]) / (self.x[1] - self.x[0]) * self.width

    def at_y(self, y):
        share = (np.asarray(y, float) - self.y[0]) / (self.y[1] - self.y[0])
        return self.top + (1 - share) * self.height


def axes(
    panel: Panel,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_label: str = "",
    y_label: str = "",
    x_names: bool = True,
) -> Markup:
    """Grid lines, their values (those of x only with `x_names`) and the names of both axes."""
    p, right, bottom = panel, panel.left + panel.width, panel.top + panel.height
    at_x = [number(v) for v in p.at_x(list(x_ticks))]
    at_y = [number(v) for v in p.at_y(list(y_ticks))]
    grid = "".join(f"M{x} {number(p.top)}V{number(bottom)}" for x in at_x)
    grid += "".join(f"M{number(p.left)} {y}H{number(right)}" for y in at_y)
    parts = [element("path", d=grid, class_="grid")]
    for value, x in zip(_labels(x_ticks), at_x, strict=True) if x_names else ():
        parts.append(text(value, float(x), bottom + 12, anchor="middle"))
    for value, y in zip(_labels(y_ticks), at_y, strict=True):
        parts.append(text(value, p.left - 4, float(y) + 3.5, anchor="end"))
    if x_label:
        parts.append(text(x_label, p.left + p.width / 2, bottom + 25, anchor="middle"))
    if y_label:
        x, y = number(p.left - 27), number(p.top + p.height / 2)
        turned = dict(transform=f"rotate(-90 {x} {y})")
        parts.append(text(y_label, float(x), float(y), anchor="middle", **turned))
    return join(parts)


def line(panel: Panel, x: np.ndarray, y: np.ndarray, class_: str, most: int = POINTS) -> Markup:
    """A line through points in data units, at most so many; where one is not finite the line has a
    gap."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    runs = np.split(known, np.flatnonzero(np.diff(known) > 1) + 1)
    points = np.stack([panel.at_x(x), panel.at_y(y)], axis=1)
    data = "".join(path(*thinned(points[run], most).T) for run in runs if len(run))
    return element("path", d=data, class_=class_) if data else Markup("")


def thinned(points: np.ndarray, most: int = POINTS) -> np.ndarray:
    """Of points [N, 2] the ends and, one after the other, the one farthest from the line that is
    drawn without it (Ramer 1972; Douglas and Peucker 1973), until none is more than `CLOSE` away or
    there are `most`."""
    kept, waiting = {0, len(points) - 1}, [_farthest(points, 0, len(points) - 1)]
    while waiting and len(kept) < most:
        distance, middle, first, last = heapq.heappop(waiting)
        if -distance <= CLOSE:
            break
        kept.add(middle)
        for ends in ((first, middle), (middle, last)):
            heapq.heappush(waiting, _farthest(points, *ends))
    return points[sorted(kept)]


def _farthest(points: np.ndarray, first: int, last: int) -> tuple[float, int, int, int]:
    """(minus its distance, index) of the point between two others that is farthest from the line
    through them, and the indices of those."""
    if last - first < 2:
        return 0.0, first, first, last
    (x, y), (along_x, along_y) = points[first], points[last] - points[first]
    off_x, off_y = points[first + 1 : last, 0] - x, points[first + 1 : last, 1] - y
    length = math.hypot(along_x, along_y)
    across = off_x * along_y - off_y * along_x if length else np.hypot(off_x, off_y)
    distance = np.abs(across) / (length or 1.0)
    middle = int(distance.argmax())
    return -float(distance[middle]), first + 1 + middle, first, last


def staircase(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points of a curve that keeps the height of its next point up to there."""
    return np.repeat(x, 2)[:-1], np.r_[y[0], np.repeat(y[1:], 2)]


def marks(panel: Panel, x: np.ndarray, y: np.ndarray, kind: int, class_: str = "") -> Markup:
    """One mark per point; `kind` chooses its colour, and its shape so that colour is not needed."""
    shape = mark_shape(kind)
    points = zip(panel.at_x(x), panel.at_y(y), strict=True)
    data = "".join(f"M{number(a)} {number(b)}{shape}" for a, b in points)
    return element("path", d=data, class_=f"mark {colour(kind)} {class_}".strip())


def mark_shape(kind: int) -> str:
    """Colours and shapes shift against each other, so 64 kinds differ."""
    return MARKS[(kind + kind // COLOURS) % len(MARKS)]


def colour(kind: int) -> str:
    return f"c{kind % COLOURS}"


def text(content: str, x: float, y: float, anchor: str = "start", **attributes) -> Markup:
    anchored = None if anchor == "start" else anchor
    return element("text", content, x=float(x), y=float(y), text_anchor=anchored, **attributes)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values within [low, high], at most `most` + 1 of them."""
    step = 10 ** math.floor(math.log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (factor * step) <= most)
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def span(values: np.ndarray, least: float = 1e-3) -> tuple[float, float]:
    """Range of the finite values with a margin of 5 %."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    margin = max(0.05 * (high - low), least / 2)
    return float(low - margin), float(high + margin)


def _labels(values: Sequence[float]) -> list[str]:
    if values and max(abs(v) for v in values) >= 1000:
        return [f"{v / 1000:g}k" if v else "0" for v in values]
    return [f"{round(v, 6):g}".replace("-", MINUS) for v in values]
