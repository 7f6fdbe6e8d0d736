"""Tables of results: both rules side by side, with controls and published figures."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from ecg_jax.evaluation.figures.across import GAIN
from ecg_jax.evaluation.figures.results import MACRO, Row, counted
from ecg_jax.evaluation.figures.tables import METRICS
from ecg_jax.report import gather
from ecg_jax.report.gather import ENCODERS, PROTOCOLS, RULES, Figures
from ecg_jax.report.markup import UNKNOWN, Markup, element, join

Published = Sequence[dict[str, Any]]


class Line(NamedTuple):
    """A row of a table: its name, a remark under it, its cells, and a class of the style."""

    name: str
    remark: str
    cells: list[Markup]
    kind: str = ""


def grid(
    caption: str, groups: list[tuple[str, int]], names: list[str], lines: list[Line]
) -> Markup:
    """A table in a region that scrolls sideways on its own and can be reached by keyboard.

    Args:
      caption: what it shows.
      groups: (heading, how many columns) above the columns; empty for none.
      names: of the columns.
      lines: its rows.
    """
    heads = []
    if groups:
        heads.append(element("tr", element("td"), *(_head(g, "colgroup", n) for g, n in groups)))
    heads.append(element("tr", element("td"), *(_head(name, "col") for name in names)))
    body = [element("tr", _row_head(line), *line.cells, class_=line.kind or None) for line in lines]
    table = element(
        "table",
        element("caption", element("span", caption)),
        element("colgroup"),
        *(element("colgroup", span=span) for _, span in groups),
        element("thead", *heads),
        element("tbody", *body),
        class_="figures",
    )
    return scroll(table, caption)


def scroll(content: Markup, label: str) -> Markup:
    """A region of its own that scrolls sideways."""
    return element(
        "div",
        content,
        class_="scroll",
        role="region",
        tabindex="0",
        aria_label=f"{label} (scrolls)",
    )


def protocol_table(figures: Figures, published: Published, task: str, protocol: str) -> Markup:
    """Macro figures of one task under one protocol: the encoders, then supervised training, chance
    and what papers report.

    Args:
      figures: of one dataset and task.
      published: of the same task and protocol.
    """
    own = gather.select(gather.macro(figures), protocol=protocol)
    columns = _columns(own, published)
    lines = []
    fractions = sorted(gather.distinct(own, "fraction"), key=lambda f: f or 0)
    for fraction in fractions:
        of = gather.select(own, fraction=fraction)
        for encoder in gather.ordered(gather.distinct(of, "encoder"), ENCODERS):
            cells = _cells(gather.select(of, encoder=encoder), columns)
            name, remark = ENCODERS.get(encoder, encoder), _remark(of, fraction, encoder)
            lines.append(Line(name, remark, cells, "" if encoder == "trained" else "control"))
    if protocol != "supervised":
        reference = gather.select(gather.macro(figures), protocol="supervised")
        for fraction, encoder in gather.distinct(reference, "fraction", "encoder"):
            of = gather.select(reference, fraction=fraction, encoder=encoder)
            remark = _remark(of, fraction, encoder)
            lines.append(Line("supervised from scratch", remark, _cells(of, columns), "control"))
    lines.append(_chance_line(own, columns))
    lines += _published_lines(published, columns)
    caption = f"{task}, {PROTOCOLS.get(protocol, protocol)}: macro mean over the classes"
    groups = [(_rule_head(own, rule), sum(r == rule for r, _ in columns)) for rule in RULES]
    groups = [group for group in groups if group[1]]
    names = [METRICS.get(metric, metric) for _, metric in columns]
    return join([grid(caption, groups, names, lines), _notes(own, published)])


def retrieval_table(figures: Figures, task: str) -> Markup:
    """A row for each direction and encoder, then chance."""
    own = gather.select(figures, protocol="retrieval", condition="")
    columns = _columns(own, ())
    lines = []
    for label in gather.distinct(own, "label"):
        of = gather.select(own, label=label)
        readable = label.replace("_to_", " to ").replace("ecg", "ECG")
        for encoder in gather.ordered(gather.distinct(of, "encoder"), ENCODERS):
            cells = _cells(gather.select(of, encoder=encoder), columns)
            kind = "" if encoder == "trained" else "control"
            lines.append(Line(readable, ENCODERS.get(encoder, encoder), cells, kind))
        lines.append(_chance_line(of, columns)._replace(name=readable, remark="chance"))
    groups = [(_rule_head(own, rule), sum(r == rule for r, _ in columns)) for rule in RULES]
    names = [METRICS.get(metric, metric) for _, metric in columns]
    table = grid(f"{task}: retrieval", [g for g in groups if g[1]], names, lines)
    return join([table, _notes(own, ())])


def condition_table(figures: Figures, task: str, protocol: str) -> Markup:
    """A row per condition of the records, encoders beside each other; corrected rule."""
    own = gather.select(figures, protocol=protocol, rule="corrected", label=MACRO)
    columns = [
        (metric, encoder)
        for metric in ("auroc", "auprc")
        for encoder in gather.ordered(gather.distinct(own, "encoder"), ENCODERS)
        if gather.select(own, metric=metric, encoder=encoder)
    ]
    lines = []
    for condition in gather.ordered(gather.distinct(own, "condition"), [""]):
        of = gather.select(own, condition=condition)
        cells = [figure_cell(gather.select(of, metric=m, encoder=e), m) for m, e in columns]
        lines.append(Line(condition or "as recorded", "", cells))
    groups = [(METRICS[m], sum(c[0] == m for c in columns)) for m in ("auroc", "auprc")]
    names = [ENCODERS.get(encoder, encoder) for _, encoder in columns]
    caption = f"{task}, {PROTOCOLS.get(protocol, protocol)}: macro mean, corrected rule"
    return grid(caption, [group for group in groups if group[1]], names, lines)


def comparison_table(compared: Sequence[Row], task: str, protocol: str) -> Markup:
    """Which encoders the first one is better than, by macro AUROC if no other metric is named:
    means over the seeds of the difference, and the largest of their p values."""
    groups: dict[tuple, list[Row]] = {}
    for row in compared:
        key = (*(row[name] for name in ("metric", "rule", "fraction", "encoder", "against")),)
        groups.setdefault(key, []).append(row)
    lines = []
    for (metric, rule, fraction, encoder, against), rows in groups.items():
        metric = metric.removesuffix("_gain")
        names = [str(ENCODERS.get(name, name)) for name in (encoder, against)]
        gain = statistics.mean(row["value"] for row in rows)
        p, p_holm = (max(row[name] for row in rows) for name in ("p", "p_holm"))
        cells = [element("td", gather.number(value)) for value in (gain, p, p_holm)]
        of = "" if metric == "auroc" else METRICS.get(metric, metric)
        remark = [of, f"{rule} rule" if rule else "", gather.share(fraction)]
        remark = ", ".join(filter(None, remark))
        lines.append(Line(" against ".join(names), remark, cells))
    if not lines:
        return Markup("")
    averaged = "macro AUROC" if any(row["metric"] == GAIN for row in compared) else "macro figures"
    caption = f"{task}, {PROTOCOLS.get(protocol, protocol)}: {averaged} against other encoders"
    table = grid(caption, [], ["difference", "p", "p, Holm"], lines)
    return element("details", element("summary", "Better than ..."), table)


def _remark(figures: Figures, fraction: float | None, encoder: str) -> str:
    seeds = max(figure.seeds for figure in gather.select(figures, encoder=encoder).values())
    return ", ".join(filter(None, [gather.share(fraction), f"{seeds} seeds" * (seeds > 1)]))


def _columns(own: Figures, published: Published) -> list[tuple[str, str]]:
    """(rule, metric) of every column that has a figure of ours or of a paper."""
    ours = {(key.rule, key.metric) for key in own}
    theirs = {(p.get("rule") or "paper", p["metric"]) for p in published}
    metrics = gather.ordered((metric for _, metric in ours | theirs), METRICS)
    return [(rule, m) for rule in RULES for m in metrics if (rule, m) in ours | theirs]


def _cells(figures: Figures, columns: list[tuple[str, str]]) -> list[Markup]:
    return [figure_cell(gather.select(figures, rule=r, metric=m), m) for r, m in columns]


def figure_cell(figures: Figures, metric: str) -> Markup:
    """A cell: the first figure, if there is one, its interval and its spread over seeds."""
    figure = next(iter(figures.values()), None)
    if figure is None:
        return element("td", UNKNOWN)
    parts: list[str] = [gather.number(figure.value, metric)]
    low, high = gather.number(figure.low, metric), gather.number(figure.high, metric)
    if UNKNOWN not in (low, high):
        parts.append(element("small", f"{low}{UNKNOWN}{high}"))
    if figure.seeds > 1 and (spread := gather.number(figure.sd, metric)) != UNKNOWN:
        parts.append(element("small", f"± {spread}"))
    return element("td", *parts)


def _chance_line(own: Figures, columns: list[tuple[str, str]]) -> Line:
    cells = []
    for rule, metric in columns:
        levels = gather.select(own, rule=rule, metric=metric).values()
        level = next((figure.chance for figure in levels), None)
        cells.append(element("td", gather.number(level, metric)))
    remark = "AUPRC: prevalence" if any(metric == "auprc" for _, metric in columns) else ""
    return Line("chance", remark, cells, "control")


def _published_lines(published: Published, columns: list[tuple[str, str]]) -> list[Line]:
    lines: dict[tuple, dict] = {}
    for p in published:
        remark = ", ".join(filter(None, ["published", gather.share(p.get("fraction"))]))
        cells = lines.setdefault((p.get("source") or "a paper", remark), {})
        cells[p.get("rule") or "paper", p["metric"]] = p.get("value")
    return [
        Line(
            source,
            remark,
            [element("td", gather.number(cells.get(c), c[1])) for c in columns],
            "published",
        )
        for (source, remark), cells in lines.items()
    ]


def _rule_head(own: Figures, rule: str) -> str:
    counts = sorted({figure.n for figure in gather.select(own, rule=rule).values()})
    *others, last = counts or [0]
    numbers = " or ".join([*(f"{n:,}" for n in others), counted(last)])
    return f"{rule} rule, {numbers}" if counts else f"{rule} rule"


def _notes(own: Figures, published: Published) -> Markup:
    """Each distinct note once, with what it is about where that is not everything."""
    about: dict[str, Figures] = {}
    for key, figure in own.items():
        for note in filter(None, (figure.choice, figure.note)):
            about.setdefault(note, {})[key] = figure
    lines = [f"{_about(figures, own)}{note}" for note, figures in about.items()]
    sources: dict[str, dict[str, None]] = {}
    for p in published:
        if p.get("note"):
            sources.setdefault(p["note"], {})[p.get("source") or "a paper"] = None
    lines += [f"{'; '.join(names)}: {note}" for note, names in sources.items()]
    if not lines:
        return Markup("")
    return element("ul", *(element("li", note) for note in lines), class_="notes")


def _about(figures: Figures, own: Figures) -> str:
    """For example "corrected, trained: "; each name is compared with the figures of the others."""
    parts = []
    for name, readable in (
        ("rule", lambda rule: rule),
        ("encoder", lambda encoder: ENCODERS.get(encoder, encoder)),
        ("fraction", gather.share),
        ("metric", lambda metric: METRICS.get(metric, metric)),
    ):
        some = gather.distinct(figures, name)
        if set(some) != set(gather.distinct(own, name)):
            parts.append(" and ".join(filter(None, map(readable, some))))
        own = {key: figure for key, figure in own.items() if getattr(key, name) in some}
    return ", ".join(filter(None, parts)) + ": " if any(parts) else ""


def _head(name: str, scope: str, columns: int = 1) -> Markup:
    return element("th", name, scope=scope, colspan=columns if columns > 1 else None)


def _row_head(line: Line) -> Markup:
    remark = [element("small", line.remark)] if line.remark else []
    return element("th", line.name, *remark, scope="row")
