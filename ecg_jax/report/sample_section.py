"""The section of recordings: each with its report, its labels and its scores."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from ecg_jax.data.leads import LEADS
from ecg_jax.report.content import Sample
from ecg_jax.report.ecg_figure import ecg_figure
from ecg_jax.report.gather import PROTOCOLS
from ecg_jax.report.markup import Markup, element, join, signed
from ecg_jax.report.tables import scroll

_KINDS = {"typical": "Typical recordings", "best": "Best cases", "worst": "Worst cases"}
_EXPLANATION = (
    "25 mm/s and 10 mm/mV; a large square is 0.2 s and 0.5 mV. Rows of 2.5 s per lead, then lead "
    "II over 10 s. Each lead's median is its isoelectric line; nothing is filtered. Drawings are "
    "as large as on paper where the screen allows; narrower screens scroll sideways."
)


def samples(given: Sequence[Sample], room: int) -> Markup:
    """Recordings by dataset, task and kind, as many as fit into `room` bytes."""
    if not given:
        return Markup("")
    groups: dict[tuple, list[Sample]] = {}
    for sample in given:
        groups.setdefault((sample.dataset, sample.task, sample.kind), []).append(sample)
    drawn: dict[tuple, list[Markup]] = {key: [] for key in groups}
    room -= 1000 + 200 * len(groups)  # the explanation and headings
    for key, sample in _in_turn(groups):
        article = _sample(sample)
        room -= len(article.encode())
        if room < 0:
            break
        drawn[key].append(article)
    left_out = len(given) - sum(map(len, drawn.values()))
    parts = [element("p", _EXPLANATION)]
    for (dataset, task, kind), articles in drawn.items():
        if articles:
            name = f"{_KINDS.get(kind, kind)} of {dataset} {task}"
            parts += [element("h3", name), *articles]
    if left_out:
        more = "more " if left_out < len(given) else ""
        recordings = "recording" if left_out == 1 else "recordings"
        parts.append(element("p", f"{left_out} {more}{recordings} would not fit into this file."))
    return join(parts)


def _in_turn(groups: Mapping[tuple, list[Sample]]) -> list[tuple[tuple, Sample]]:
    """The first of each group, then the second of each, ..."""
    turns = itertools.zip_longest(*([(key, sample) for sample in groups[key]] for key in groups))
    return [pair for turn in turns for pair in turn if pair is not None]


def _sample(sample: Sample) -> Markup:
    there = np.asarray(sample.lead_mask, bool)
    leads = "12 leads" if there.all() else f"leads {', '.join(np.array(LEADS)[there])}"
    labels = ", ".join(sample.labels) or "none"
    title = f"Record {sample.record_id}: ECG with {leads}, labels {labels}"
    picture = ecg_figure(sample.ecg, sample.rate, sample.lead_mask, title)
    facts = [_fact("labels", element("strong", labels))]
    if sample.note:
        facts.append(_fact("shown because", sample.note))
    if sample.report.strip():
        facts.append(_fact("report", element("q", sample.report, dir="auto")))
    else:
        facts.append(_fact("report", "none"))
    return element(
        "article",
        element("h4", f"Record {sample.record_id}"),
        scroll(picture, f"ECG of record {sample.record_id}"),
        element("div", element("dl", *facts, class_="facts"), _tables(sample), class_="beside"),
        class_="sample",
    )


def _tables(sample: Sample) -> Markup:
    tables = []
    if sample.scores:
        protocol = PROTOCOLS.get(sample.protocol, sample.protocol)
        tables.append(_scores("top classes", f"{protocol} score".strip(), sample.scores))
    if sample.prompts:
        tables.append(_scores("top prompts", "cosine", sample.prompts))
    return element("div", *tables) if tables else Markup("")


def _scores(what: str, unit: str, given: Sequence[tuple[str, float]]) -> Markup:
    """Scores as numbers and as bars between the lowest and the highest of them."""
    scores = np.array([score for _, score in given], float)
    known = scores[np.isfinite(scores)]
    low, high = known.min(initial=0.0), known.max(initial=1e-9)
    rows = []
    for (name, _), score in zip(given, scores.tolist(), strict=True):
        share = (score - low) / (high - low) if np.isfinite(score) else 0.0
        bar = element("span", class_="bar", style=f"width:{100 * share:.0f}%", aria_hidden="true")
        cells = (element("td", signed(score)), element("td", bar, class_="track"))
        rows.append(element("tr", element("th", name, scope="row"), *cells))
    head = [element("th", title, scope="col") for title in (what, unit)]
    return element(
        "table",
        element("thead", element("tr", *head, element("td"))),
        element("tbody", *rows),
        class_="scores",
    )


def _fact(name: str, value: str) -> Markup:
    return element("div", element("dt", name), element("dd", value))
