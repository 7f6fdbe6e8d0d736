"""Tables with a row for each class, folded away under the macro figures."""

from collections.abc import Mapping, Sequence

import numpy as np

from ecg_jax.evaluation.figures.predictions import Predictions
from ecg_jax.evaluation.figures.results import MACRO, counted
from ecg_jax.evaluation.figures.tables import METRICS
from ecg_jax.report import gather
from ecg_jax.report.gather import ENCODERS, PROTOCOLS, RULES, Figures
from ecg_jax.report.markup import UNKNOWN, Markup, element
from ecg_jax.report.tables import Line, Published, figure_cell, grid

Column = tuple[str, str, str]  # rule, metric, encoder


_TRAINED = ("trained", "supervised")


def class_table(
    figures: Figures,
    published: Published,
    task: str,
    protocol: str,
    predictions: Sequence[Predictions] = (),
    words: Mapping[str, str] | None = None,
) -> Markup:
    """Figures of every class with the largest fraction of labels, the trained encoder's sensitivity
    and specificity at the thresholds of validation, and the published figures.

    Args:
      figures: of one dataset and task.
      published: of the same task and protocol; those with a `label` are used.
      predictions: of the same dataset and task.
      words: class -> what it is.
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
    judged = _judged(predictions, protocol, fraction)
    said = [{f.note for f in gather.select(own, label=label).values()} for label in labels]
    of_all = set.intersection(*said) if len(labels) > 1 else set()  # stands under the macro figures
    lines = []
    for label in labels:
        figures_of = gather.select(own, label=label)
        line = _line(figures_of, label, columns, (words or {}).get(label, ""), of_all)
        values = (theirs.get((label, name), {}).get("value") for name in sources)
        cells = [*line.cells[:2], *_at_threshold(judged, label), *line.cells[2:]]
        cells += [element("td", gather.number(value)) for value in values]
        lines.append(line._replace(cells=cells))
    n = next(iter(_counted(own).values())).n
    groups = [(f"of {counted(n)}", 2)]
    groups += [("at validation's threshold", 2)] if judged else []
    groups += [(f"{rule} rule", sum(c[0] == rule for c in columns)) for rule in RULES]
    groups = [group for group in [*groups, ("published", len(sources))] if group[1]]
    names = ["positive", "prevalence", *(["sensitivity", "specificity"] if judged else [])]
    names += [*map(_name, columns), *sources]
    title = ", ".join(filter(None, [PROTOCOLS.get(protocol, protocol), gather.share(fraction)]))
    table = grid(f"{task}, {title}: by class", groups, names, lines)
    summary = element("summary", f"Each of the {len(labels)} classes: {title}")
    return element("details", summary, table)


def _judged(
    predictions: Sequence[Predictions], protocol: str, fraction: float | None
) -> Predictions | None:
    """The trained encoder's, of the corrected rule and records as they are."""
    wanted = dict(protocol=protocol, fraction=fraction, rule="corrected", condition="")
    for p in predictions:
        if p.encoder in _TRAINED and all(getattr(p, k) == v for k, v in wanted.items()):
            return p
    return None


def _at_threshold(p: Predictions | None, label: str) -> list[Markup]:
    """Cells of a class's sensitivity and specificity, with how many records each is of."""
    if p is None:
        return []
    if label not in p.classes:
        return [element("td", UNKNOWN)] * 2
    k = list(p.classes).index(label)
    y, cut = np.asarray(p.y[:, k], bool), float(p.threshold[k])
    yes = np.asarray(p.score[:, k]) >= cut
    return [_share(yes[y], cut), _share(~yes[~y], cut)]


def _share(right: np.ndarray, cut: float) -> Markup:
    if not len(right) or np.isnan(cut):
        return element("td", UNKNOWN)
    counted = element("small", f"{int(right.sum()):,} of {len(right):,}")
    return element("td", gather.number(float(right.mean())), counted)


def _columns(own: Figures) -> list[Column]:
    """AUROC of every encoder, and the trained one's other metrics."""
    return [
        (rule, metric, encoder)
        for rule in RULES
        for metric in gather.ordered(gather.distinct(own, "metric"), METRICS)
        for encoder in gather.ordered(gather.distinct(own, "encoder"), ENCODERS)
        if (metric == "auroc" or encoder in _TRAINED)
        and gather.select(own, rule=rule, metric=metric, encoder=encoder)
    ]


def _name(column: Column) -> str:
    _, metric, encoder = column
    name = METRICS.get(metric, metric)
    return name if encoder == "trained" else f"{name}, {ENCODERS.get(encoder, encoder)}"


def _line(figures: Figures, label: str, columns: list[Column], words: str, of_all: set) -> Line:
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
    remarks = dict.fromkeys(f.note for f in figures.values() if f.note and f.note not in of_all)
    return Line(label, "; ".join(filter(None, [words, *remarks])), cells)


def _counted(figures: Figures) -> Figures:
    """Those whose positives are shown: of the corrected rule, if there are such."""
    return gather.select(figures, rule="corrected") or figures
