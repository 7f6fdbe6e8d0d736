"""A table's rows of several seeds, beside the figures that its paper prints."""

import statistics
from collections.abc import Sequence
from typing import Any

from ecg_jax.evaluation.figures import across, results
from ecg_jax.evaluation.figures.predictions import key
from ecg_jax.evaluation.papers import published


def beside(rows: Sequence[results.Row], name: str) -> str:
    """Macro figures, retrieval and the classes that the paper prints, a line for each protocol,
    rule, share, encoder and metric: ours as mean ± standard deviation over seeds, half the width of
    the 95 % interval over patients, chance, and the paper's. Other classes and harder records are
    in report.html."""
    theirs = {
        _published_key(row, row["encoder"] if row["role"] == "baseline" else row["role"]): row
        for row in published.load()
        if row["table"] == name
    }
    printed = {(row["task"], row["label"]) for row in theirs.values()}
    groups: dict[tuple, list[results.Row]] = {}
    for row in rows:
        general = row["label"] in (results.MACRO, "ecg_to_report", "report_to_ecg")
        if across.is_gain(row) or row["condition"]:
            continue
        if general or (row["task"], row["label"]) in printed:
            groups.setdefault((*key(row), row["label"], row["metric"]), []).append(row)
    lines = [
        f"{'task':<8}{'protocol':<26}{'rule':<11}{'encoder':<18}{'metric':<11}"
        "ours, interval, chance, the paper's"
    ]
    for group in groups.values():
        first = group[0]
        share = "" if first["fraction"] in (None, 1) else f" {first['fraction']:.0%}"
        what = first["protocol"] + share
        if first["label"] != results.MACRO:
            what += f", {first['label']}"
        line = f"{first['task']:<8}{what:<26}{first['rule']:<11}"
        line += f"{first['encoder']:<18}{first['metric']:<11}{spread([r['value'] for r in group])}"
        widths = [r["ci_high"] - r["ci_low"] for r in group if r["ci_low"] is not None]
        if widths:
            line += f", interval ± {statistics.mean(widths) / 2:.3f}"
        if first["chance"] is not None:
            line += f", chance {first['chance']:.3f}"
        if paper := theirs.get(_published_key(first, first["encoder"])):
            line += f", {paper['value']:.3f} in the paper"
        lines.append(line)
    lines += [_compared(row) for row in rows if across.is_gain(row)]
    return "\n".join(lines)


def _compared(row: results.Row) -> str:
    share = "" if row["fraction"] in (None, 1) else f" {row['fraction']:.0%}"
    seed = f"seed {row['seed']}, " if "seed" in row else ""
    where = f"{row['task']:<8}{row['protocol'] + share:<26}{row['rule']:<11}"
    return f"{where}{seed}{across.sentence(row)}"


def _published_key(row: dict[str, Any], encoder: str) -> tuple:
    names = ("dataset", "task", "protocol", "rule", "fraction", "label", "metric")
    return (encoder, *(row.get(name) for name in names))


def spread(values: Sequence[float | None]) -> str:
    """`.857 ± .009`; a dash where a figure is not defined."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    if len(known) == 1:
        return f"{known[0]:.3f}"
    return f"{statistics.mean(known):.3f} ± {statistics.stdev(known):.3f}"
