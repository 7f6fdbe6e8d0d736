"""CSV and NPY: numbers alone, so their rate, unit and leads must be said."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfds_builders.errors import RecordError
from tfds_builders.formats.found import Found, checked, per_microvolt
from tfds_builders.table import read_text

_DELIMITERS = (",", ";", "\t")
_HOW = "say what the file does not: rate, units and leads"


def read_npy(path: Path, stated: Any) -> Found:
    """An array of numbers [samples, leads] or [leads, samples]."""
    with path.open("rb") as file:
        try:
            samples = np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, EOFError, TypeError, SyntaxError) as error:
            raise RecordError(f"{path}: not a whole NPY array of numbers ({error})") from None
        if file.read(1):
            raise RecordError(f"{path}: more bytes than its array has")
    if samples.ndim != 2 or samples.dtype.kind not in "iuf":
        raise RecordError(f"{path}: {samples.dtype} {samples.shape}: not numbers [samples, leads]")
    leads = _stated_leads(path, stated)
    if samples.shape[0] == samples.shape[1]:
        raise RecordError(f"{path}: {samples.shape}: which axis is time can't be told")
    if samples.shape[1] != len(leads):
        samples = samples.T
    if samples.shape[1] != len(leads):
        raise RecordError(
            f"{path}: {samples.shape[::-1]} for {len(leads)} leads: neither axis is theirs"
        )
    return _found(path, samples.astype(np.float64), leads, "NPY", stated)


def read_csv(path: Path, stated: Any) -> Found:
    """A table with a column for each lead; its first line may name them. Columns that are empty
    throughout are leads that are not there."""
    text = read_text(path, "a table of samples")
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    if not rows:
        raise RecordError(f"{path}: no samples")
    names = None if _numbers(rows[0]) else [cell.strip() for cell in rows.pop(0)]
    if names and stated.leads is not None and list(stated.leads) != names:
        raise RecordError(f"{path}: names its columns {', '.join(names)}, not as stated")
    leads = names or _stated_leads(path, stated)
    for number, row in enumerate(rows, 1 + bool(names)):
        if len(row) != len(leads):
            raise RecordError(
                f"{path}, line {number}: {len(row)} cells for {len(leads)} leads: cut short?"
            )
    if not rows:
        raise RecordError(f"{path}: no samples below its names")
    columns = {}
    for name, cells in zip(leads, zip(*rows, strict=True), strict=True):
        if any(cell.strip() for cell in cells):
            columns[name] = _column(path, name, cells, 1 + bool(names))
    if not columns:
        raise RecordError(f"{path}: no samples")
    empty = [name for name in leads if name not in columns]
    samples = np.stack(list(columns.values()), axis=1)
    notes = (f"empty columns: {', '.join(empty)}",) if empty else ()
    return _found(path, samples, list(columns), "CSV", stated)._replace(notes=notes)


def _column(path: Path, name: str, cells: Sequence[str], first: int) -> np.ndarray:
    try:
        return np.array(cells, np.float64)
    except ValueError:
        pass
    for line, cell in enumerate(cells, first):
        try:
            float(cell)
        except ValueError:
            raise RecordError(f"{path}, line {line}, {name}: {cell[:40]!r} is no number") from None
    raise RecordError(f"{path}: column {name} does not hold numbers")


def _numbers(row: Sequence[str]) -> bool:
    try:
        return bool([float(cell) for cell in row if cell.strip()])
    except ValueError:
        return False


def _stated_leads(path: Path, stated: Any) -> list[str]:
    if not stated.leads:
        raise RecordError(f"{path}: whose leads are its columns? {_HOW}")
    return list(stated.leads)


def _found(path: Path, samples: np.ndarray, leads: Sequence[str], form: str, stated: Any) -> Found:
    missing = [what for what in ("rate", "units") if getattr(stated, what) is None]
    if missing:
        raise RecordError(f"{path}: {form} gives no {' and no '.join(missing)}: {_HOW}")
    step = per_microvolt(stated.units, path)
    whole = (samples == np.rint(samples)).all()
    found = Found(
        samples * step,
        tuple(leads),
        float(stated.rate),
        form,
        resolution=step if whole else 0.0,
    )
    return checked(found, path)
