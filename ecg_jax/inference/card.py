"""The model card of an export: one screen, and the figures in a file beside it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecg_jax.evaluation.figures import tables
from ecg_jax.evaluation.figures.results import MACRO, Row
from ecg_jax.evaluation.heads import Heads
from ecg_jax.inference.scores import NOT_A_DEVICE, PROTOCOLS
from ecg_jax.run.experiment import NO_TOWER

FIGURES = "FIGURES.md"
LICENCES = {
    "ptb_xl": "PTB-XL (CC BY 4.0)",
    "cpsc2018": "CPSC2018 (as published by the challenge)",
    "mit_bih": "the MIT-BIH Arrhythmia Database (ODC-By 1.0)",
    "simulated": "simulated recordings, of no patient",
}


def card(
    description: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    rows: Sequence[Row],
    heads: Heads | None,
) -> str:
    """README.md of an export.

    Args:
      description: config.json.
      arrays: the weights by name.
      rows: the figures of this checkpoint in the run's results.json.
      heads: how classes are scored and judged, if the run was evaluated.
    """
    given, tower, run = (description[name] for name in ("input", "text_tower", "provenance"))
    count = sum(array.size for name, array in arrays.items() if name.startswith("params/"))
    size = sum(array.nbytes for array in arrays.values()) / 1e6
    samples = round(given["seconds"] * given["rate_hz"])
    stand_in = (
        f"\n**The text tower is a stand-in: {tower['note']}.** Figures with a clinical language "
        "model will differ.\n"
        if tower["stand_in"]
        else ""
    )
    return f"""# {description["method"]} on {run["dataset"]}

An ECG encoder of {count:,} parameters ({size:.0f} MB), trained with ecg_jax {run["ecg_jax"]}
({run["commit"]}), step {run["step"]:,}. {NOT_A_DEVICE}
{stand_in}
Trained on {LICENCES.get(run["dataset"], f"the dataset {run['dataset']!r} (its owner's licence)")};
{_start(description)}code Apache-2.0.

## Use

    pip install "ecg-jax[formats]"
    python -m ecg_jax.predict RECORDING... --model FOLDER --out DIR

    import ecg_jax
    model = ecg_jax.load("FOLDER")
    recording = ecg_jax.read("record.xml")
    model.features(recording){_uses(tower, heads)}

Input: {given["seconds"]:g} s at {given["rate_hz"]} Hz of leads
{", ".join(given["trained_leads"])};
`ecg_jax.read` resamples, places leads by name and masks missing ones. `model.exported.encode` is
the bare function of int16 microvolts [batch, {samples}, {len(given["leads"])}] and a mask
[batch, {len(given["leads"])}].

{_text(tower)}
{_bank(description)}
## Figures

{_short(rows)}
"""


def figures(rows: Sequence[Row], heads: Heads | None) -> str:
    """FIGURES.md: every macro figure, and what was chosen on validation."""
    table = f"```\n{tables.table(rows)}\n```" if rows else "Not evaluated."
    notes = [
        f"- {h.task} by {PROTOCOLS[h.protocol]}: {h.note}; {h.records:,} validation records"
        for h in (heads.heads if heads else [])
    ]
    chosen = "\n\n## What was chosen on validation\n\n" + "\n".join(notes) if notes else ""
    return f"# Figures\n\n{table}{chosen}\n"


def by_class(rows: Sequence[Row], heads: Heads | None) -> dict[str, dict[str, str]]:
    """ "dataset/task/protocol" -> class -> its test figure in words, for each head."""
    found: dict[str, dict[str, str]] = {}
    for head in heads.heads if heads else ():
        for row in _trained(rows):
            where = (row["dataset"], row["task"], row["protocol"], row["metric"])
            of_class = where == (*head.key, "auroc") and row["label"] in head.classes
            if of_class and _number(row["value"]):
                text = f"AUROC {_figure(row)} on {row['n']:,} test records"
                found.setdefault("/".join(head.key), {})[row["label"]] = text
    return found


def _trained(rows: Sequence[Row]) -> list[Row]:
    """Of the trained encoder, under the corrected rule, on records as they are and all labels."""
    return [
        row
        for row in rows
        if row["encoder"] == "trained"
        and row.get("rule", "corrected") == "corrected"
        and not row.get("condition")
        and row.get("fraction") in (None, 1.0)
    ]


def _short(rows: Sequence[Row]) -> str:
    macro = [r for r in _trained(rows) if r["label"] == MACRO and r["metric"] == "auroc"]
    cells = [
        (r["task"], str(PROTOCOLS.get(r["protocol"], r["protocol"])), _figure(r), f"{r['n']:,}")
        for r in macro
        if _number(r["value"])
    ]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    if not lines:
        return "Not evaluated."
    head = ["| task | protocol | macro AUROC, test (95 %) | records |", "|---|---|---|---|"]
    return "\n".join([*head, *lines, "", f"All figures, with chance and controls: {FIGURES}."])


def _figure(row: Row) -> str:
    interval = (row["ci_low"], row["ci_high"])
    known = all(map(_number, interval))
    return f"{row['value']:.3f}" + (f" ({interval[0]:.3f}-{interval[1]:.3f})" if known else "")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _start(description: Mapping[str, Any]) -> str:
    start = description["config"].get("init")
    return f"started from the weights of {start};\n" if start else ""


def _uses(tower: Mapping[str, Any], heads: Heads | None) -> str:
    lines = []
    if heads and (tasks := list(dict.fromkeys(h.task for h in heads.heads))):
        lines.append(f"    model.classify(recording, task={tasks[0]!r})    # of {', '.join(tasks)}")
    if tower["name"] != NO_TOWER["name"]:
        lines.append('    model.zero_shot(recording, ["left bundle branch block.", "normal ecg."])')
    return "".join(f"\n{line}" for line in lines)


def _bank(description: Mapping[str, Any]) -> str:
    if "bank_sha256" not in description:
        return ""
    return """
`model.exported.bank` holds the training reports' embeddings and counts, and those of their
sentences, no text; `ecg_jax.evaluation.protocols.report_bank.read` weighs them.
"""


def _text(tower: Mapping[str, Any]) -> str:
    if tower["name"] == NO_TOWER["name"]:
        return "Trained without text."
    return f"""Text: {tower["note"]} (sha256 {tower["sha256"]}), pooling {tower["pooling"]},
reports in {tower["language"]}, template `{tower["template"]}`."""
