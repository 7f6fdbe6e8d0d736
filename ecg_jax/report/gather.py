"""Result rows of several seeds made one figure each, and the names that readers see."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures.results import MACRO, Row
from ecg_jax.report.markup import UNKNOWN

RULES = ("corrected", "paper", "ecg_fix")
PROTOCOLS = {
    "zero_shot": "zero-shot",
    "zero_shot_reports": "zero-shot through the training reports",
    "own_report": "zero-shot of the record's own report",
    "linear_probe": "linear probe",
    "attention_probe": "attention probe",
    "finetune": "fine-tuning",
    "supervised": "supervised from scratch",
    "knn": "k nearest neighbours",
    "identify": "identification",
    "delineate": "delineation",
    "retrieval": "retrieval",
}
ENCODERS = {
    "trained": "trained",
    "shuffled": "shuffled reports",
    "random": "random encoder",
    "random heads": "random heads, many draws",
    "random heads, fixed prompts": "random heads, prompts not chosen",
    "supervised": "supervised",
}


class Key(NamedTuple):
    """What a figure is of."""

    dataset: str
    task: str
    split: str
    protocol: str
    rule: str
    fraction: float | None
    condition: str
    encoder: str
    label: str
    metric: str


class Figure(NamedTuple):
    """A figure over its seeds: means of the values and of the ends of their intervals; `sd` is the
    standard deviation over seeds, NaN for one seed."""

    value: float
    low: float
    high: float
    sd: float
    seeds: int
    chance: float
    n: int
    positives: int
    note: str
    choice: str


Figures = dict[Key, Figure]


def gather(rows: Sequence[Row]) -> Figures:
    """Figures in the order of the rows.

    Raises:
      UserError: two rows for the same figure and seed.
    """
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(_key(row), []).append(row)
    return {key: _figure(key, group) for key, group in groups.items()}


def select(figures: Figures, **wanted: Any) -> Figures:
    """The figures whose key has these values."""
    return {
        key: figure
        for key, figure in figures.items()
        if all(getattr(key, name) == value for name, value in wanted.items())
    }


def macro(figures: Figures) -> Figures:
    """Macro figures of records as they are (no leads taken away, no noise)."""
    return select(figures, label=MACRO, condition="")


def distinct(figures: Iterable[Key], *names: str) -> list[Any]:
    """Distinct values of one field of the keys, or tuples of several, in order."""
    one = len(names) == 1
    values = (tuple(getattr(key, name) for name in names) for key in figures)
    return list(dict.fromkeys(value[0] if one else value for value in values))


def ordered(values: Iterable[str], order: Iterable[str]) -> list[str]:
    """Values in the order of a list of names; those that it lacks come last."""
    place = {name: i for i, name in enumerate(order)}
    return sorted(dict.fromkeys(values), key=lambda value: place.get(value, len(place)))


def share(fraction: float | None) -> str:
    """For example "5 % of labels"; empty where labels play no part."""
    return "" if fraction is None else f"{100 * fraction:.3g} % of labels"


def number(value: float | None, metric: str = "") -> str:
    """Three decimals (a rank: one), or a dash for what is not defined."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:.1f}" if metric == "median_rank" else f"{value:.3f}"


def _key(row: Row) -> Key:
    named: dict[str, Any] = {"rule": "corrected", "fraction": None, "condition": ""}
    named |= {name: row[name] for name in Key._fields if row.get(name) is not None}
    return Key(**named)


def _figure(key: Key, rows: list[Row]) -> Figure:
    seeds = [row.get("seed") for row in rows]
    if len(set(seeds)) < len(seeds):
        what = ", ".join(str(part) for part in key if part not in (None, ""))
        raise UserError(f"report: two result rows for {what}: give rows of several runs their seed")
    value, low, high, chance = (
        np.array([math.nan if row.get(name) is None else row[name] for row in rows], float)
        for name in ("value", "ci_low", "ci_high", "chance")
    )
    sd = float(value.std(ddof=1)) if len(rows) > 1 else math.nan
    first = rows[0]
    notes, choices = (
        "; ".join(dict.fromkeys(str(row[name]) for row in rows if row.get(name)))
        for name in ("note", "choice")
    )
    return Figure(
        *(float(part.mean()) for part in (value, low, high)),
        sd=sd,
        seeds=len(rows),
        chance=float(chance[0]),
        n=int(first.get("n") or 0),
        positives=int(first.get("positives") or 0),
        note=notes,
        choice=choices,
    )
