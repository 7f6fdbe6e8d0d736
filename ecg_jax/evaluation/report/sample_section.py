"""The section of recordings: each with its report, its labels and its scores."""

import itertools
from collections.abc import Sequence

import numpy as np

from ecg_jax.data.leads import LEADS
from ecg_jax.evaluation.report.content import Sample
from ecg_jax.evaluation.report.ecg_figure import ecg_figure
from ecg_jax.evaluation.report.markup import Markup, element, join, signed
from ecg_jax.evaluation.report.tables import scroll

_KINDS = {"typical": "Typical recordings", "best": "Best cases", "worst": "Worst cases"}
_EXPLANATION = (
    "25 mm/s and 10 mm/mV; a large square is 0.2 s and 0.5 mV. Rows of 2.5 s per lead, then lead "
    "II over 10 s. Each lead's median is its isoelectric line; nothing is filtered. Drawings are "
    "as large as on paper where the screen allows; narrower screens scroll sideways."
)


def samples(given: Sequence[Sample], room: int) -> Markup:
    """Recordings by kind, as many as fit into `room` bytes."""
    if not given:
        return Markup("")
    kinds = [*(k for k in _KINDS if any(s.kind == k for s in given))]
    kinds += list(dict.fromkeys(s.kind for s in given if s.kind not in _KINDS))
    drawn: dict[str, list[Markup]] = {kind: [] for kind in kinds}
    room -= 2000  # headings and the explanation
    for sample in _in_turn(given, kinds):
        article = _sample(sample)
        room -= len(article.encode())
        if room < 0:
            break
        drawn[sample.kind].append(article)
    left_out = len(given) - sum(map(len, drawn.values()))
    parts = [element("p", _EXPLANATION)]
    for kind, articles in drawn.items():
        if articles:
            parts += [element("h3", _KINDS.get(kind, kind)), *articles]
    if left_out:
        parts.append(element("p", f"{left_out} more recordings would not fit into this file."))
    return join(parts)


def _in_turn(given: Sequence[Sample], kinds: Sequence[str]) -> list[Sample]:
    """The first of each kind, then the second of each, ..."""
    by_kind = [[sample for sample in given if sample.kind == kind] for kind in kinds]
    turns = itertools.zip_longest(*by_kind)
    return [sample for turn in turns for sample in turn if sample is not None]


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
        element("div", element("dl", *facts, class_="facts"), _prompts(sample), class_="beside"),
        class_="sample",
    )


def _prompts(sample: Sample) -> Markup:
    """Scores as numbers and as bars between the lowest and the highest of them."""
    if not sample.prompts:
        return Markup("")
    scores = np.array([score for _, score in sample.prompts], float)
    known = scores[np.isfinite(scores)]
    low, high = known.min(initial=0.0), known.max(initial=1e-9)
    rows = []
    for (prompt, _), score in zip(sample.prompts, scores.tolist(), strict=True):
        share = (score - low) / (high - low) if np.isfinite(score) else 0.0
        bar = element("span", class_="bar", style=f"width:{100 * share:.0f}%", aria_hidden="true")
        name = element("th", prompt, scope="row")
        rows.append(
            element("tr", name, element("td", signed(score)), element("td", bar, class_="track"))
        )
    head = [element("th", "top prompts", scope="col"), element("th", "score", scope="col")]
    return element(
        "table",
        element("thead", element("tr", *head, element("td"))),
        element("tbody", *rows),
        class_="scores",
    )


def _fact(name: str, value: str) -> Markup:
    return element("div", element("dt", name), element("dd", value))
