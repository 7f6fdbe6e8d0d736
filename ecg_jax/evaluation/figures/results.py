"""Rows of `results.json`: every figure with its interval, number of records and chance level."""

import csv
import io
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures import bootstrap, metrics
from ecg_jax.runtime import storage
from ecg_jax.runtime.files import write_whole

Row = dict[str, Any]

COLUMNS = (
    *("task", "dataset", "split", "protocol", "encoder", "label", "metric"),
    *("value", "ci_low", "ci_high", "n"),
)
METRICS = ("auroc", "auprc", "f1", "accuracy")
MACRO = "macro"
ALONE = "no interval: all with the class, or all without it, are records of one patient"


def counted(n: int, what: str = "record") -> str:
    """`1 record`, `2,198 records`."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def ordered(row: Row) -> Row:
    """A row with `COLUMNS` before what else it has."""
    return {name: row[name] for name in COLUMNS} | row


def rows(
    y: np.ndarray,
    score: np.ndarray,
    threshold: np.ndarray,
    patient_id: Sequence[str] | np.ndarray,
    *,
    task: str,
    dataset: str,
    split: str,
    protocol: str,
    encoder: str,
    classes: Sequence[str],
    draws: np.ndarray,
) -> list[Row]:
    """Every metric of every class and of their macro mean, with 95 % intervals over patients.

    A figure that is not defined is NaN and its `note` says why: a class without positives or
    without negatives in the split, without a score, or (F1 and accuracy) without a threshold. The
    macro mean leaves these classes out and its note names them. A class whose positives or
    negatives all belong to one patient has figures but no interval, nor has a figure of 0 or 1.

    Besides the columns of `COLUMNS` each row has `positives` (records; for macro, the number of
    classes averaged), `chance` (what a predictor that does not look at the recording reaches: AUROC
    0.5, AUPRC the prevalence, F1 all positive, accuracy the commoner answer) and `note`.

    Args:
      y: bool [N, K].
      score: float [N, K]; a column of NaN is a class without a score.
      threshold: float [K]: `score >= threshold` is positive. Chosen on validation; NaN for none.
      patient_id: [N].
      classes: [K] names.
      draws: [R, N] from `bootstrap.draws(patient_id)`.

    Raises:
      UserError: arrays that do not fit each other, or draws that split a patient's records.
    """
    y, score, threshold = np.asarray(y), np.asarray(score), np.asarray(threshold)
    _check_fit(y, score, threshold, patient_id, classes, draws)
    y = y.astype(bool)
    reasons = _reasons(y, score, threshold)
    values, drawn = _figures(y, score, threshold, reasons, draws)
    rests_on = _patients(y, np.asarray(patient_id))
    chance = _chance(y)
    where = dict(task=task, dataset=dataset, split=split, protocol=protocol, encoder=encoder)

    def row(label: str, metric: str, columns: slice, positives: int, note: str) -> Row:
        value = float(metrics.macro(values[metric][columns]))
        defined = np.where(np.isnan(values[metric]), np.nan, chance[metric])
        ends = bootstrap.interval(value, drawn[metric][:, columns], rests_on[metric][columns])
        figures = dict(zip(COLUMNS[-4:], (value, *ends, len(y)), strict=True))
        level = float(metrics.macro(defined[columns]))
        extras = dict(positives=positives, chance=level, note=note)
        return {**where, "label": label, "metric": metric, **figures, **extras}

    everything, table = slice(None), []
    for metric in METRICS:
        count = int((~np.isnan(values[metric])).sum())
        note = _macro_note(classes, reasons[metric], rests_on[metric])
        table.append(row(MACRO, metric, everything, count, note))
    for k, name in enumerate(classes):
        for metric in METRICS:
            alone = "" if rests_on[metric][k] > 1 else ALONE
            note = reasons[metric][k] or alone
            table.append(row(name, metric, slice(k, k + 1), int(y[:, k].sum()), note))
    return table


def read(path: Path) -> list[Row]:
    """The rows of a file that `write` wrote; none where there is no file.

    Raises:
      UserError: the file is damaged.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8")) if storage.exists(path) else []
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): remove it and evaluate again") from None
    if not isinstance(rows, list):
        raise UserError(f"{path} is damaged (no list of rows): remove it and evaluate again")
    for i, row in enumerate(rows):
        if why := _unlike_a_row(row):
            raise UserError(
                f"{path} is damaged (row {i}: {why}): remove it, or the row, and evaluate again"
            )
    return rows


TEXTS = (*COLUMNS[:7], "rule", "condition", "note", "text_tower", "against")
NUMBERS = (*COLUMNS[7:], "chance", "seed", "step", "positives", "fraction", "p", "p_holm")
WHOLE = ("n", "seed", "step", "positives")


def _unlike_a_row(row: Any) -> str:
    """Why this is none of what `write` writes; empty if it is."""
    if not isinstance(row, dict):
        return "no object"
    if missing := [name for name in COLUMNS if name not in row]:
        return f"lacks {', '.join(missing)}"
    for name, value in row.items():
        whole = name in WHOLE
        if (
            name in TEXTS
            and not isinstance(value, str)
            and not (value is None and name not in COLUMNS)
        ):
            return f"{name} is {str(value)[:40]!r}, not a text"
        if name not in NUMBERS or (value is None and name != "n"):
            continue
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            return f"{name} is {str(value)[:40]!r}, not a {'whole ' * whole}number"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{name} is {value}"
    return ""


def write(rows: list[Row], path: str | os.PathLike) -> None:
    """Writes the rows as JSON, whole or not at all; figures that are not finite become null.

    Raises:
      UserError: a row without one of `COLUMNS`, or the file cannot be written.
    """
    for i, row in enumerate(rows):
        missing = [column for column in COLUMNS if column not in row]
        if missing:
            raise UserError(f"result row {i} lacks {', '.join(missing)}")
    lines = ",\n".join(json.dumps(plain(row), ensure_ascii=False, allow_nan=False) for row in rows)
    write_whole(storage.path(path), f"[\n{lines}\n]\n".encode())


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Writes the rows as a table: a line for each figure and seed, figures to four decimals.

    Raises:
      UserError: the file cannot be written.
    """
    where = ("task", "dataset", "split", "protocol", "rule", "fraction", "condition", "encoder")
    figures = ("value", "ci_low", "ci_high", "chance", "p", "p_holm")
    names: list[str] = [*where, "against", "label", "metric", "seed", "step", *figures]
    names += ["n", "positives"]
    text = io.StringIO()
    table = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    for row in map(plain, rows):
        shown = {n: f"{row[n]:.4f}" for n in figures if row.get(n) is not None}
        table.writerow({n: row.get(n, "") for n in names if n not in figures} | shown)
    write_whole(path, text.getvalue().encode())


def _figures(
    y: np.ndarray,
    score: np.ndarray,
    threshold: np.ndarray,
    reasons: dict[str, list[str]],
    draws: np.ndarray,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Values [K] and bootstrap values [R, K] of each metric; NaN where there is a reason.

    All metrics of a draw are over the same classes: those with positives and negatives in it.
    """
    score = np.asarray(score, np.float64)
    predicted = score >= threshold
    values, drawn = {}, {}
    for weight, into in ((None, values), (draws, drawn)):
        into["auroc"], into["auprc"] = metrics.ranking(y, score, weight)
        into["f1"] = metrics.f1(y, predicted, weight)
        into["accuracy"] = metrics.accuracy(y, predicted, weight)
        for metric in METRICS:
            undefined = np.isnan(into["auroc"]) | np.array([bool(r) for r in reasons[metric]])
            into[metric] = np.where(undefined, np.nan, into[metric])
    return values, drawn


def _reasons(y: np.ndarray, score: np.ndarray, threshold: np.ndarray) -> dict[str, list[str]]:
    """Why a metric of a class is not defined; empty where it is."""
    ranked = []
    for k in range(y.shape[1]):
        if not y[:, k].any():
            ranked.append("no positive")
        elif y[:, k].all():
            ranked.append("no negative")
        else:
            ranked.append("no score" if np.isnan(score[:, k]).all() else "")
    cut = ["no threshold" if not r and np.isnan(threshold[k]) else r for k, r in enumerate(ranked)]
    return {"auroc": ranked, "auprc": ranked, "f1": cut, "accuracy": cut}


def _macro_note(classes: Sequence[str], reasons: list[str], patients: np.ndarray) -> str:
    """For example "2 of 71 classes left out: no positive: WPW, 3AVB"."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in zip(classes, reasons, strict=True):
        if reason:
            by_reason.setdefault(reason, []).append(name)
    parts = [f"{reason}: {', '.join(names)}" for reason, names in by_reason.items()]
    count = sum(map(len, by_reason.values()))
    notes = [f"{count} of {len(classes)} classes left out: {'; '.join(parts)}"] if parts else []
    alone = sum(m < 2 and not r for m, r in zip(patients, reasons, strict=True))
    if alone:
        each = "class rests on one patient" if alone == 1 else "classes rest on one patient each"
        notes.append(f"interval too narrow: {alone} {each}")
    return ". ".join(notes)


def _patients(y: np.ndarray, patient_id: np.ndarray) -> dict[str, np.ndarray]:
    """[K]: how many patients each metric of a class rests on, as `bootstrap.interval` asks.

    F1 at a given threshold varies with the false positives of all patients: with the fewer's
    degrees of freedom, intervals held the truth 99 % of the time for a class with 12 patients.
    """
    everyone = np.full(y.shape[1], len(np.unique(patient_id)))
    kinds = [[len(np.unique(patient_id[own])) for own in (column, ~column)] for column in y.T]
    fewer = np.array(kinds).min(axis=1)
    return {
        "auroc": fewer,
        "auprc": fewer,
        "f1": np.where(fewer > 1, everyone, fewer),
        "accuracy": everyone,
    }


def _chance(y: np.ndarray) -> dict[str, np.ndarray]:
    prevalence = y.sum(axis=0) / max(1, len(y))
    return {
        "auroc": np.full(y.shape[1], 0.5),
        "auprc": prevalence,
        "f1": 2 * prevalence / (1 + prevalence),
        "accuracy": np.maximum(prevalence, 1 - prevalence),
    }


def _check_fit(y, score, threshold, patient_id, classes, draws) -> None:
    shapes = {
        "scores": (score.shape, (len(y), len(classes))),
        "labels": (y.shape, (len(y), len(classes))),
        "thresholds": (threshold.shape, (len(classes),)),
        "patient_id": (np.shape(patient_id), (len(y),)),
        "draws": (np.shape(draws)[1:], (len(y),)),
    }
    for name, (shape, expected) in shapes.items():
        if shape != expected:
            raise UserError(f"{name} of shape {shape} do not fit, expected {expected}")
    if len(set(classes)) < len(classes):
        raise UserError("two classes have the same name")
    _, first, patient = np.unique(patient_id, return_index=True, return_inverse=True)
    if not np.array_equal(draws, draws[:, first[patient]]):
        raise UserError("the bootstrap draws do not belong to these patients")


def plain(row: Row) -> Row:
    """Only what JSON knows."""
    values = {k: v.item() if isinstance(v, np.generic) else v for k, v in row.items()}
    return {
        k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()
    }
