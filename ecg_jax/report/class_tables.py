"""Tables with a row for each class, folded away under the macro figures."""

from ecg_jax.evaluation.figures.results import MACRO
from ecg_jax.evaluation.figures.tables import METRICS
from ecg_jax.report import gather
from ecg_jax.report.gather import ENCODERS, PROTOCOLS, RULES, Figures
from ecg_jax.report.markup import Markup, element
from ecg_jax.report.tables import Line, Published, figure_cell, grid

Column = tuple[str, str, str]  # rule, metric, encoder


def class_table(figures: Figures, published: Published, task: str, protocol: str) -> Markup:
    """Figures of every class with the largest fraction of labels, and the published ones.

    Args:
      figures: of one dataset and task.
      published: of the same task and protocol; those with a `label` are used.
    """
    own = gather.select(figures, protocol=protocol, condition="")
    own = {key: figure for key, figure in own.items() if key.label != MACRO}
    if not own:
        return Markup("")
    fraction = max(gather.distinct(own, "fraction"), key=lambda f: f or 0)
    own = gather.select(own, fraction=fraction)
    columns = _columns(own)
    labels = gather.distinct(own, "label")
    theirs = {
        (p["label"], f"{METRICS.get(p['metric'], p['metric'])}, {p.get('source') or 'a paper'}"): p
        for p in published
        if p.get("label") in labels and (p.get("fraction") or 1.0) == (fraction or 1.0)
    }
    sources = list(dict.fromkeys(name for _, name in theirs))
    lines = []
    for label in labels:
        line = _line(gather.select(own, label=label), label, columns)
        values = (theirs.get((label, name), {}).get("value") for name in sources)
        cells = [*line.cells, *(element("td", gather.number(value)) for value in values)]
        lines.append(line._replace(cells=cells))
    n = next(iter(_counted(own).values())).n
    groups = [(f"of {n:,} records", 2)]
    groups += [(f"{rule} rule", sum(c[0] == rule for c in columns)) for rule in RULES]
    groups = [group for group in [*groups, ("published", len(sources))] if group[1]]
    names = ["positive", "prevalence", *map(_name, columns), *sources]
    title = ", ".join(filter(None, [PROTOCOLS.get(protocol, protocol), gather.share(fraction)]))
    table = grid(f"{task}, {title}: by class", groups, names, lines)
    summary = element("summary", f"Each of the {len(labels)} classes: {title}")
    return element("details", summary, table)


def _columns(own: Figures) -> list[Column]:
    """AUROC of every encoder, and the trained one's other metrics."""
    return [
        (rule, metric, encoder)
        for rule in RULES
        for metric in gather.ordered(gather.distinct(own, "metric"), METRICS)
        for encoder in gather.ordered(gather.distinct(own, "encoder"), ENCODERS)
        if (metric == "auroc" or encoder in ("trained", "supervised"))
        and gather.select(own, rule=rule, metric=metric, encoder=encoder)
    ]


def _name(column: Column) -> str:
    _, metric, encoder = column
    name = METRICS.get(metric, metric)
    return name if encoder == "trained" else f"{name}, {ENCODERS.get(encoder, encoder)}"


def _line(figures: Figures, label: str, columns: list[Column]) -> Line:
    counted = next(iter(_counted(figures).values()))
    prevalence = counted.positives / counted.n if counted.n else None
    cells = [
        element("td", f"{counted.positives:,}"),
        element("td", gather.number(prevalence)),
        *(
            figure_cell(gather.select(figures, rule=rule, metric=metric, encoder=encoder), metric)
            for rule, metric, encoder in columns
        ),
    ]
    remarks = dict.fromkeys(figure.note for figure in figures.values() if figure.note)
    return Line(label, "; ".join(remarks), cells)


def _counted(figures: Figures) -> Figures:
    """Those whose positives are shown: of the corrected rule, if there are such."""
    return gather.select(figures, rule="corrected") or figures
