"""Results for the terminal."""

import math
import textwrap
from collections.abc import Sequence

from ecg_jax.evaluation.figures import across
from ecg_jax.evaluation.figures.results import MACRO, Row, counted

_WIDTH = 96
_CELL = 21
METRICS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "f1": "F1",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "challenge score": "Challenge score",
    "rank-1": "rank 1",
    "rank-5": "rank 5",
    "brier": "Brier score",
    "ece": "calibration error",
    "recall@1": "recall at 1",
    "recall@5": "recall at 5",
    "recall@10": "recall at 10",
    "median_rank": "median rank",
    "dice": "sample F1",
    "miou": "mean IoU",
    "f1_150": "boundaries, 150 ms",
    "f1_strict": "boundaries, strict",
}
_ELSEWHERE = ("brier", "ece")  # in results.json and on the page: a terminal is not that wide
_DIRECTIONS = {"ecg_to_report": "ECG to report", "report_to_ecg": "report to ECG"}


def table(rows: Sequence[Row]) -> str:
    """Macro figures and retrieval, at most 96 columns: one block for each task, protocol, rule and
    share of the labels, then one for the harder conditions of a task and protocol.

    A block lists its encoders under each other, in the order of the rows, and ends with chance and
    with what is better than what.
    """
    blocks: dict[str, list[Row]] = {}
    harder: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        title = _title(row)
        if row["label"] not in (MACRO, *_DIRECTIONS):
            continue
        if row["protocol"] == "identify":
            where = ", ".join(filter(None, [title, row.get("condition")]))
            blocks.setdefault(f"{where}, {counted(row['n'], 'patient')}", []).append(row)
            continue
        if row.get("condition"):
            if row["metric"] in ("auroc", "challenge score"):
                harder.setdefault((title, row["metric"]), []).append(row)
            continue
        blocks.setdefault(f"{title}, {counted(row['n'])}", []).append(row)
    parts = [_block(title, block) for title, block in blocks.items()]
    return "\n\n".join(parts + [_harder(*key, block) for key, block in harder.items()])


def _title(row: Row) -> str:
    what = _DIRECTIONS.get(row["label"], row["protocol"])
    share = row.get("fraction")
    labels = f", {share:.0%} of labels" if share not in (None, 1.0) else ""
    rule = f" · {row['rule']} rule" if row.get("rule") else ""
    return f"{row['dataset']} {row['task']} · {what}{labels}{rule} · {row['split']}"


def _block(title: str, block: list[Row]) -> str:
    found = {(row["encoder"], row["metric"]): row for row in block}
    shown = [m for m in METRICS if any(row["metric"] == m for row in block)]
    shown = [m for m in shown if m not in _ELSEWHERE]
    encoders = list(dict.fromkeys(row["encoder"] for row in block))
    first = max(map(len, [*encoders, "chance"])) + 2
    mean = "macro, " if block[0]["label"] == MACRO else ""
    lines = textwrap.wrap(f"{title} · {mean}95 % interval", _WIDTH)
    lines.append(" " * first + "".join(f"{METRICS[m]:<{_CELL}}" for m in shown))
    for encoder in encoders:
        cells = [_cell(found.get((encoder, m))) for m in shown]
        lines.append(f"{encoder:<{first}}" + "".join(f"{cell:<{_CELL}}" for cell in cells))
    chances = [found.get((encoders[0], m), {}).get("chance", math.nan) for m in shown]
    lines.append(f"{'chance':<{first}}" + "".join(f"{_figure(c):<{_CELL}}" for c in chances))
    lines += _notes([row for row in block if row["metric"] in shown])
    lines += [f"  {across.sentence(row)}" for row in block if across.is_gain(row)]
    return "\n".join(line.rstrip() for line in lines)


def _harder(title: str, metric: str, block: list[Row]) -> str:
    """A metric under each condition, encoders beside each other."""
    found = {(row["condition"], row["encoder"]): row for row in block}
    conditions = list(dict.fromkeys(row["condition"] for row in block))
    encoders = list(dict.fromkeys(row["encoder"] for row in block))
    first = max(map(len, conditions)) + 2
    lines = textwrap.wrap(
        f"{title}, harder records · macro {METRICS[metric]}, 95 % interval", _WIDTH
    )
    lines.append(" " * first + "".join(f"{e:<{_CELL}}" for e in encoders))
    for condition in conditions:
        cells = [_cell(found.get((condition, e))) for e in encoders]
        lines.append(f"{condition:<{first}}" + "".join(f"{cell:<{_CELL}}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


def _notes(block: list[Row]) -> list[str]:
    """Each distinct note once, with the metrics and encoders that it holds for if not for all."""
    about: dict[str, list[Row]] = {}
    for row in block:
        if row.get("note"):
            about.setdefault(row["note"], []).append(row)
    lines = []
    for note, rows_of_note in about.items():
        about_what = []
        for column in ("encoder", "metric"):
            of = list(dict.fromkeys(row[column] for row in rows_of_note))
            if len(of) < len({row[column] for row in block}):
                about_what.append(", ".join(str(METRICS.get(name, name)) for name in of))
        text = ": ".join([*([" ".join(about_what)] if about_what else []), note])
        lines += textwrap.wrap(text, _WIDTH, subsequent_indent="  ")
    return lines


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    ends = f" ({_figure(row['ci_low'])}-{_figure(row['ci_high'])})"
    return _figure(row["value"]) + (ends if _known(row["ci_low"]) else "")


def _figure(value: float | None) -> str:
    if value is None or not _known(value):
        return "-"
    return f"{value:.3f}" if abs(value) < 2 else f"{value:.1f}"


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
