"""HTML and SVG from data: whatever is not markup already is escaped."""

import html
import math
import re
from collections.abc import Iterable

import numpy as np

UNKNOWN = "\N{EN DASH}"  # what a figure that is not known is shown as
MINUS = "\N{MINUS SIGN}"
_VOID = {"br", "col", "hr", "meta"}
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Text that is markup; any other string is escaped when it becomes part of an element."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """Text as it may stand in an element or in a quoted attribute."""
    return Markup(html.escape(_CONTROL.sub("\ufffd", str(text))))


def join(parts: Iterable[str], between: str = "") -> Markup:
    """Parts after each other; those that are not markup are escaped, and so is `between`."""
    return Markup(_markup(between).join(map(_markup, parts)))


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """`<tag attributes>children</tag>`.

    Underscores in an attribute's name stand for hyphens, one at its end for a Python keyword
    (`class_`). An attribute that is None or False is left out, one that is True has no value.
    """
    written = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{join(children)}</{tag}>")


def svg(title: str, width: float, height: float, /, *children: str, **attributes: object) -> Markup:
    """A picture `width` x `height` user units large; `title` says in words what it shows."""
    box = {"viewBox": f"0 0 {number(width)} {number(height)}", "role": "img", **attributes}
    return element("svg", element("title", title), *children, **box)


def number(value: float) -> str:
    """A coordinate to 0.1, as short as it can be written."""
    text = f"{round(float(value), 1):g}"
    return "0" if text == "-0" else re.sub(r"^(-?)0\.", r"\1.", text)


def signed(value: float) -> str:
    """Two decimals with a true minus sign, or a dash for what is not finite."""
    if not math.isfinite(value):
        return UNKNOWN
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", MINUS)


def path(x: np.ndarray, y: np.ndarray) -> str:
    """The data of an SVG path through points [N], to 0.1 of a unit; points on a straight run of
    others are left out."""
    tenths = np.rint(10 * np.stack([x, y], axis=1).astype(np.float64)).astype(np.int64)
    points = _corners(tenths)
    if not len(points):
        return ""
    steps = "".join(_pair(step) for step in np.diff(points, axis=0).tolist())
    # a line of no length still shows its round cap
    return f"M{_pair(points[0].tolist()).strip()}l{steps.strip() or '0 0'}"


def _corners(points: np.ndarray) -> np.ndarray:
    """Integer points [N, 2] without repetitions and without those on a straight run."""
    if len(points) > 1:
        points = points[np.r_[True, np.diff(points, axis=0).any(axis=1)]]
    if len(points) < 3:
        return points
    before, after = np.diff(points, axis=0)[:-1], np.diff(points, axis=0)[1:]
    cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    straight = (cross == 0) & ((before * after).sum(axis=1) > 0)
    return points[np.r_[True, ~straight, True]]


def _pair(tenths: list[int]) -> str:
    x, y = (number(t / 10) for t in tenths)
    return f"{x if x.startswith('-') else ' ' + x}{y if y.startswith('-') else ' ' + y}"


def _markup(part: str) -> str:
    return part if isinstance(part, Markup) else escape(part)


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    if isinstance(value, float) and math.isfinite(value):
        value = number(value)
    return f' {name}="{escape(value)}"'
