"""PTB-XL's table of records, and one record as an example."""

import ast
import csv
import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from tfds_builders.ptb_xl.scp import NUM_CLASSES, Statements
from tfds_builders.records import LEADS, RecordError, SourceError, read_wfdb

SECONDS = 10
_COLUMNS = ("ecg_id", "patient_id", "age", "sex", "report", "scp_codes", "strat_fold")


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of `ptbxl_database.csv` that is sure to be sound in what splits depend on."""

    ecg_id: str
    patient_id: str
    fold: int
    stem: str
    fields: dict[str, str]


def load_rows(path: Path, source_rate: int) -> list[Row]:
    """Reads `ptbxl_database.csv` for the files of 500 or 100 Hz; raises SourceError."""
    column = {500: "filename_hr", 100: "filename_lr"}[source_rate]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if missing := {*_COLUMNS, column} - set(reader.fieldnames or ()):
                raise SourceError(f"{path}: lacks column {', '.join(sorted(missing))}")
            rows = [_row(fields, column, path, reader.line_num) for fields in reader]
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file; --source is PTB-XL's own folder") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path}: not a table in UTF-8 ({error})") from error
    ids = {row.ecg_id for row in rows}
    if len(ids) != len(rows):
        raise SourceError(f"{path}: {len(rows)} rows have only {len(ids)} different ecg_id")
    return rows


def _row(fields: dict[str, str], column: str, path: Path, line: int) -> Row:
    try:
        fold = int(float(fields["strat_fold"]))
        row = Row(
            ecg_id=_integer(fields["ecg_id"]),
            patient_id=_integer(fields["patient_id"]),
            fold=fold,
            stem=fields[column],
            fields={name: fields[name] for name in _COLUMNS},
        )
    except (TypeError, ValueError) as error:
        raise SourceError(f"{path}, line {line}: {error}") from error
    if not 1 <= fold <= 10:
        raise SourceError(f"{path}, line {line}: strat_fold {fold} is not in 1-10")
    if row.stem.startswith("/") or ".." in row.stem.split("/") or not row.stem:
        raise SourceError(f"{path}, line {line}: {column} {row.stem!r} leaves the folder")
    return row


def _integer(text: str) -> str:
    """The published table writes patient 15709 as 15709.0."""
    value = float(text)
    if not value.is_integer():
        raise ValueError(f"{text!r} is not a whole number")
    return str(int(value))


def example(
    source: Path, row: Row, rate: int, statements: Statements, sha256: Mapping[str, str]
) -> list[dict]:
    """The record's one example; raises RecordError."""
    codes = _parse_codes(row.fields["scp_codes"], statements)
    stem = source / row.stem
    ecg, lead_mask = read_wfdb(stem, rate, sha256=sha256, required_leads=LEADS)
    if len(ecg) != SECONDS * rate:
        raise RecordError(f"{stem}.hea: {len(ecg) / rate:g} s long, not {SECONDS} s")
    return [
        {
            "ecg": ecg,
            "lead_mask": lead_mask,
            "record_id": row.ecg_id,
            "patient_id": row.patient_id,
            "report": row.fields["report"],
            "fold": row.fold,
            "labels": {task: _multi_hot(task, codes, statements) for task in NUM_CLASSES},
            "scp_likelihood": np.array(
                [codes.get(code, -1) for code in statements.classes["all"]], np.float32
            ),
            "age": np.float32(_number(row.fields["age"], "age", math.nan)),
            "sex": np.int32(_number(row.fields["sex"], "sex", -1)),
        }
    ]


def _multi_hot(task: str, codes: Mapping[str, float], statements: Statements) -> np.ndarray:
    present = statements.present(task, codes)
    return np.array([code in present for code in statements.classes[task]], np.uint8)


def _parse_codes(text: str, statements: Statements) -> dict[str, float]:
    """{statement: likelihood in %} of a literal such as "{'NORM': 100.0, 'SR': 0.0}"."""
    try:
        codes = {str(code): float(value) for code, value in ast.literal_eval(text).items()}
    except (AttributeError, SyntaxError, TypeError, ValueError) as error:
        raise RecordError(f"ptbxl_database.csv: scp_codes {text[:60]!r} unreadable") from error
    if unknown := set(codes) - set(statements.classes["all"]):
        raise RecordError(f"ptbxl_database.csv: unknown statement {', '.join(sorted(unknown))}")
    if not all(0 <= value <= 100 for value in codes.values()):
        raise RecordError(f"ptbxl_database.csv: likelihood outside 0-100 in {text[:60]!r}")
    return codes


def _number(text: str, column: str, missing: float) -> float:
    if not text:
        return missing
    try:
        return float(text)
    except ValueError:
        raise RecordError(f"ptbxl_database.csv: {column} {text!r} is not a number") from None


def patients_in_two_splits(splits: Mapping[str, list[Row]]) -> Iterator[str]:
    """Patients whose records lie in more than one split."""
    seen: dict[str, str] = {}
    for split, rows in splits.items():
        for row in rows:
            if seen.setdefault(row.patient_id, split) != split:
                yield row.patient_id
