"""The sections of tables: results, robustness, retrieval."""

import math

from ecg_jax.evaluation.figures.results import MACRO
from ecg_jax.evaluation.figures.tables import METRICS
from ecg_jax.report import gather, tables
from ecg_jax.report.class_tables import class_table
from ecg_jax.report.content import Content
from ecg_jax.report.gather import ENCODERS, PROTOCOLS, Figures
from ecg_jax.report.map_figures import Level, interval_figure
from ecg_jax.report.markup import UNKNOWN, Markup, element, join
from ecg_jax.report.tables import Published

# Colour and mark of an encoder in interval figures.
_KINDS = {"trained": 0, "random": 1, "supervised": 2, "shuffled": 3}
_PUBLISHED = 4

_EXPLANATION = (
    (
        "corrected rule",
        "Every label of a record counts; thresholds, prompts, penalties and checkpoints are chosen "
        "on validation; records of the test split are of other patients.",
    ),
    (
        "paper rule",
        "What the published systems did, their flaws included: records of a single class, and "
        "where the published figures only fit that, a threshold chosen on the test split itself.",
    ),
    (
        "interval",
        "95 %, over patients drawn with replacement. It does not hold what another training "
        "would change: that is the ± standard deviation over seeds, where several were trained; "
        "value and interval are then means over them.",
    ),
    (
        "controls",
        "What a figure means shows beside them: a random encoder, training on shuffled reports, "
        "supervised training from scratch, what age and sex, the heart rate or the record's own "
        "report tell a linear probe, and chance, which does not look at the recording "
        "(AUROC 0.5; AUPRC the prevalence; retrieval: the commonest reports first).",
    ),
    (
        "ecg_fix rule",
        "As arXiv 2602.17531 asks: doubtful statements are left out, and the probe's scaling, "
        "penalty and weights are chosen by the log-loss on validation.",
    ),
    (
        "better than",
        "A paired permutation test: both encoders' scores of a patient are exchanged at random. p "
        "is corrected for the comparisons of a protocol (Holm); of several seeds it is the "
        "largest.",
    ),
    (UNKNOWN, "Not measured, or not defined; the notes under a table say which."),
)


def results(content: Content, figures: Figures) -> Markup:
    """A part for each dataset and task: a figure of intervals, and a table per protocol, with what
    is better than what."""
    own = {key: figure for key, figure in figures.items() if key.protocol != "retrieval"}
    if not own:
        return Markup("")
    pairs = [
        element("div", element("dt", name), element("dd", what)) for name, what in _EXPLANATION
    ]
    words = element("summary", "What the words mean")
    parts = [element("details", words, element("dl", *pairs, class_="explanation"))]
    for dataset, task in gather.distinct(own, "dataset", "task"):
        parts.append(_task(content, gather.select(own, dataset=dataset, task=task)))
    return join(parts)


def robustness(figures: Figures) -> Markup:
    """Tables of every task and protocol that has rows of changed records."""
    changed = [key for key in figures if key.condition]
    parts = []
    for dataset, task, protocol in gather.distinct(changed, "dataset", "task", "protocol"):
        own = gather.select(figures, dataset=dataset, task=task, protocol=protocol)
        fractions = {key.fraction for key in own if key.condition}
        largest = max(fractions, key=lambda fraction: fraction or 0)
        own = gather.select(own, fraction=largest, rule="corrected", label=MACRO)
        if own:
            name = f"{dataset} {task}"
            body = join([_condition_figure(own, name), tables.condition_table(own, name, protocol)])
            summary = element("summary", f"{name}, {PROTOCOLS.get(protocol, protocol)}")
            parts.append(element("details", summary, body, open=not parts))
    return join(parts)


def retrieval(figures: Figures) -> Markup:
    """A report found by its ECG among those of the split, and the other way round."""
    own = gather.select(figures, protocol="retrieval")
    parts = []
    for dataset, task in gather.distinct(own, "dataset", "task"):
        name = f"{dataset} {task}"
        parts.append(element("h3", name))
        of = gather.select(own, dataset=dataset, task=task)
        parts.append(tables.retrieval_table(of, name))
    return join(parts)


def _task(content: Content, figures: Figures) -> Markup:
    dataset, task = gather.distinct(figures, "dataset", "task")[0]
    published = [
        p
        for p in content.published
        if p["task"] == task and (p.get("dataset") or dataset) == dataset
    ]
    compared = [r for r in content.compared if (r["dataset"], r["task"]) == (dataset, task)]
    scored = [p for p in content.predictions if (p.dataset, p.task) == (dataset, task)]
    words = content.words.get((dataset, task), {})
    name = f"{dataset} {task}"
    parts = [element("h3", name), _overview(figures, published, name)]
    for protocol in gather.ordered(gather.distinct(figures, "protocol"), PROTOCOLS):
        theirs = [p for p in published if p["protocol"] == protocol]
        if gather.select(gather.macro(figures), protocol=protocol):
            heading = PROTOCOLS.get(protocol, protocol)
            parts.append(element("h4", heading[:1].upper() + heading[1:]))
            parts.append(tables.protocol_table(figures, _averages(theirs), name, protocol))
            tested = [row for row in compared if row["protocol"] == protocol]
            parts.append(tables.comparison_table(tested, name, protocol))
            parts.append(class_table(figures, theirs, name, protocol, scored, words))
    return join(parts)


def _overview(figures: Figures, published: Published, name: str) -> Markup:
    """Macro AUROC of every protocol and encoder, with the published ones."""
    own = gather.select(gather.macro(figures), metric="auroc", rule="corrected")
    levels, chance = [], math.nan
    for protocol in gather.ordered(gather.distinct(own, "protocol"), PROTOCOLS):
        of = gather.select(own, protocol=protocol)
        for fraction in sorted(gather.distinct(of, "fraction"), key=lambda f: f or 0):
            by_encoder = {k.encoder: f for k, f in gather.select(of, fraction=fraction).items()}
            for encoder in gather.ordered(by_encoder, ENCODERS):
                figure, chance = by_encoder[encoder], by_encoder[encoder].chance
                what = [PROTOCOLS.get(protocol, protocol), gather.share(fraction)]
                what = [part.removesuffix(" of labels") for part in what if part]
                label = " ".join(what) + ("" if protocol == "supervised" else f", {encoder}")
                kind = "supervised" if protocol == "supervised" else encoder
                ends = figure.value, figure.low, figure.high
                levels.append(Level(label, *ends, _KINDS.get(kind, 5)))
        for p in _averages(published):
            if p["protocol"] == protocol and p["metric"] == "auroc" and p.get("value") is not None:
                label = f"published: {p.get('source') or 'a paper'}"
                label = label if len(label) <= 40 else f"{label[:39]}…"
                levels.append(Level(label, p["value"], math.nan, math.nan, _PUBLISHED))
    if not levels:
        return Markup("")
    title = f"{name}: macro AUROC with 95 % intervals, corrected rule; published figures as marks"
    return interval_figure(title, levels, chance, "macro AUROC (ours: corrected rule)")


def _averages(published: Published) -> Published:
    """Those that are means over the classes."""
    return [p for p in published if (p.get("label") or MACRO) == MACRO]


def _condition_figure(own: Figures, name: str) -> Markup:
    aurocs = gather.select(own, metric="auroc")
    levels, chance = [], math.nan
    for condition in gather.ordered(gather.distinct(aurocs, "condition"), [""]):
        of = {k.encoder: f for k, f in gather.select(aurocs, condition=condition).items()}
        for encoder in gather.ordered(of, ENCODERS):
            figure, chance = of[encoder], of[encoder].chance
            label = f"{condition or 'as recorded'}, {encoder}"
            ends = figure.value, figure.low, figure.high
            levels.append(Level(label, *ends, _KINDS.get(encoder, 5)))
    if not levels:
        return Markup("")
    title = f"{name}: macro {METRICS['auroc']} of changed records, with 95 % intervals"
    return interval_figure(title, levels, chance, "macro AUROC, corrected rule")
