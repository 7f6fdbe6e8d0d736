"""Published figures, read from `published.toml`: what ours are set beside."""

import functools
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ecg_jax.data.classes import TASKS
from ecg_jax.errors import UserError

PUBLISHED = Path(__file__).with_name("published.toml")
PROTOCOLS = ("zero_shot", "linear_probe", "finetune", "supervised", "delineate")
RULES = ("paper", "benchmark")
ROLES = ("trained", "random", "supervised")
METRICS = ("auroc", "accuracy", "f1", "precision", "recall", "dice")
COLUMNS = (
    *("table", "title", "source", "rule", "dataset", "task", "protocol", "fraction"),
    *("encoder", "role", "label", "metric", "value", "note"),
)
_TABLE = {"source", "title", "rule", "scale", "metrics", "roles", "note", "parts"}
_EITHER = {"dataset", "task", "protocol", "fraction", "label"}


def load(path: Path = PUBLISHED) -> list[dict[str, Any]]:
    """Every figure as a dict of `COLUMNS`.

    `value` is in [0, 1]. `rule` is "paper" (what ETP and METS did) or "benchmark" (the field's
    shared benchmark, for context). `fraction` is the share of the training labels, or None where
    none are used. `role` is the encoder of ours that a figure belongs beside (`ROLES`), or
    "baseline". `label` is a class or "macro".

    Raises:
      UserError: the file is not what it should be.
    """
    return [dict(row) for row in _read(path)]


@functools.cache
def _read(path: Path) -> list[dict[str, Any]]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    rows = [row for name, entry in data.items() for row in _rows(path, name, entry)]
    seen = set()
    for row in rows:
        columns = ("table", "dataset", "task", "protocol", "fraction", "encoder", "label", "metric")
        key = tuple(row[column] for column in columns)
        if key in seen:
            raise UserError(f"{path}: two figures for {', '.join(map(str, key))}")
        seen.add(key)
    return rows


def _rows(path: Path, name: str, entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    where = f"{path}: [{name}]"
    if unknown := set(entry) - _TABLE - _EITHER:
        raise UserError(f"{where} has unknown fields: {', '.join(sorted(unknown))}")
    if missing := {"source", "title", "rule", "scale", "metrics", "note", "parts"} - set(entry):
        raise UserError(f"{where} lacks {', '.join(sorted(missing))}")
    if entry["rule"] not in RULES or set(entry.get("roles", {}).values()) - set(ROLES):
        raise UserError(f"{where}: rule is one of {', '.join(RULES)}, roles of {', '.join(ROLES)}")
    each = [entry["metrics"], *(part.get("metrics", ()) for part in entry["parts"])]
    if unknown := set().union(*each) - set(METRICS):
        raise UserError(f"{where} has unknown metrics: {', '.join(sorted(unknown))}")
    shared = {key: entry[key] for key in _EITHER & set(entry)}
    for part in entry["parts"]:
        if unknown := set(part) - _EITHER - {"values", "metrics"}:
            raise UserError(f"{where} has unknown fields in a part: {', '.join(sorted(unknown))}")
        place = {"fraction": None, **shared, **part}
        _check_place(where, place)
        metrics = part.get("metrics", entry["metrics"])
        for encoder, printed in part["values"].items():
            values = _values(where, entry["scale"], len(metrics), printed)
            for metric, value in zip(metrics, values, strict=True):
                row = {
                    "table": name,
                    **{key: entry[key] for key in ("title", "source", "rule", "note")},
                    **{key: place[key] for key in _EITHER},
                    "encoder": encoder,
                    "role": entry.get("roles", {}).get(encoder, "baseline"),
                    "metric": metric,
                    "value": value,
                }
                yield {column: row[column] for column in COLUMNS}


def _check_place(where: str, place: dict[str, Any]) -> None:
    """What a figure is of must be something this project measures."""
    if missing := (_EITHER | {"values"}) - set(place):
        raise UserError(f"{where}: a part lacks {', '.join(sorted(missing))}")
    task = TASKS.get(place["dataset"], {}).get(place["task"])
    if task is None and place["protocol"] != "delineate":
        raise UserError(f"{where}: no task {place['task']!r} of dataset {place['dataset']!r}")
    if place["label"] not in ("macro", *(task.classes if task else ())):
        raise UserError(f"{where}: {place['task']} has no class {place['label']!r}")
    if place["protocol"] not in PROTOCOLS:
        raise UserError(f"{where}: protocol is one of {', '.join(PROTOCOLS)}")
    fraction = place["fraction"]
    if (fraction is None) != (place["protocol"] == "zero_shot") or not 0 < (fraction or 1) <= 1:
        raise UserError(
            f"{where}: {place['protocol']} with fraction {fraction}: a share of the labels in "
            "(0, 1], and none for zero_shot"
        )


def _values(where: str, scale: float, count: int, printed: list[float]) -> list[float]:
    if len(printed) != count or not all(0 <= value <= scale for value in printed):
        raise UserError(f"{where}: {printed} are not {count} figures of 0-{scale}")
    return [round(value / scale, 6) for value in printed]
