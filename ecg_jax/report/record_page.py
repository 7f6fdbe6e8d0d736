"""The page of one recording: its drawing, and what a model says of it."""

from collections.abc import Sequence

import numpy as np

from ecg_jax.inference.scores import NOT_A_DEVICE, PROTOCOLS, Scores, figure
from ecg_jax.report.document import document
from ecg_jax.report.ecg_figure import ecg_figure
from ecg_jax.report.markup import UNKNOWN, Markup, element, join
from ecg_jax.report.tables import scroll

_DRAWN = (
    "25 mm/s and 10 mm/mV; a large square is 0.2 s and 0.5 mV. Each lead's median is its "
    "isoelectric line; nothing is filtered. Narrow screens scroll sideways."
)
_SAYS = {True: "yes", False: "no", None: UNKNOWN}


def render(
    name: str,
    ecg: np.ndarray,
    lead_mask: np.ndarray,
    rate: int,
    facts: Sequence[tuple[str, str]],
    found: Sequence[Scores],
    limits: Sequence[str] = (),
) -> Markup:
    """The page as HTML.

    Args:
      name: the recording's.
      ecg: int16 [T, 12] microvolts, what is drawn; `lead_mask` bool [12], `rate` in Hz.
      facts: what was found in the file and done to it.
      found: a table each, with a heading.
      limits: sentences beside that this is no medical device.
    """
    there = int(np.sum(lead_mask))
    title = f"ECG of {name}, {there} of 12 leads"
    picture = scroll(ecg_figure(ecg, rate, lead_mask, title), f"ECG of {name}")
    warned = element("ul", *(element("li", text) for text in (NOT_A_DEVICE, *limits)))
    return document(
        name,
        element("a", "Skip to the content", href="#main", class_="skip"),
        element(
            "header",
            element("h1", name),
            element(
                "aside",
                element("h2", "Limits"),
                warned,
                class_="limits",
                aria_label="Limits",
            ),
            element("dl", *(_fact(*fact) for fact in facts), class_="description"),
        ),
        element(
            "main",
            element("h2", "Recording"),
            picture,
            element("p", _DRAWN),
            *map(_scores, found),
            id="main",
            tabindex="-1",
        ),
    )


def _fact(name: str, value: str) -> Markup:
    return element("div", element("dt", name), element("dd", value))


def _scores(scores: Scores) -> Markup:
    """A task's classes, the most likely first."""
    title = f"{scores.task}: {PROTOCOLS[scores.protocol]}"
    if scores.task == "own words":
        title = "Classes in words of your own: zero-shot"
    told = any(scores.figures)
    heads = ["class", "at its threshold", "probability", "", "score"]
    heads += ["how well the score tells it"] if told else []
    rows = [_row(scores, k, told) for k in scores.order]
    table = element(
        "table",
        element("thead", element("tr", *(element("th", h, scope="col") for h in heads))),
        element("tbody", *rows),
        class_="scores",
    )
    meaning = scores.meaning[:1].upper() + scores.meaning[1:] + "."
    return join([element("h2", title), scroll(table, title), element("p", meaning)])


def _row(scores: Scores, k: int, told: bool) -> Markup:
    p = float(scores.probability[k])
    share = f"width:{100 * p:.0f}%" if p == p else "width:0"
    bar = element("span", class_="bar", style=share, aria_hidden="true")
    code, name = scores.classes[k], scores.names[k]
    cells = [
        element("th", name if code == name else f"{name} ({code})", scope="row"),
        element("td", _SAYS[scores.yes[k]]),
        element("td", _number(p)),
        element("td", bar, class_="track"),
        element("td", _number(float(scores.score[k]))),
    ]
    if told:
        cells.append(element("td", scores.figures[k] or UNKNOWN, class_="told"))
    return element("tr", *cells)


def _number(value: float) -> str:
    return figure(value) if value == value else UNKNOWN
