"""PTB-XL's table of records, and one record as an example."""

import dataclasses
import datetime
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from tfds_builders.errors import RecordError, SourceError
from tfds_builders.leads import LEADS
from tfds_builders.ptb_xl.scp import NUM_CLASSES, Statements
from tfds_builders.records import read_wfdb
from tfds_builders.table import integer, number, read_table

SECONDS = 10
_CODE = re.compile(r"['\"]([^'\",{}]+)['\"]: (-?\d{1,9}(?:\.\d*)?)")
_CODES = re.compile(rf"\{{(?:{_CODE.pattern}(?:, {_CODE.pattern})*)?\}}")
_COLUMNS = ("ecg_id", "patient_id", "age", "sex", "report", "scp_codes", "strat_fold")


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of `ptbxl_database.csv` that is sure to be sound in what splits depend on."""

    ecg_id: str
    patient_id: str
    fold: int
    stem: str
    fields: dict[str, str]
    recorded: str = ""


def load_rows(path: Path, source_rate: int) -> list[Row]:
    """Reads `ptbxl_database.csv` for the files of 500 or 100 Hz; raises SourceError."""
    column = {500: "filename_hr", 100: "filename_lr"}[source_rate]
    table = read_table(path, (*_COLUMNS, column), "--source is PTB-XL's own folder")
    rows = [_row(fields, column, path, line) for line, fields in table]
    for name, values in (
        ("ecg_id", [row.ecg_id for row in rows]),
        (column, [row.stem for row in rows]),
    ):
        if len(set(values)) != len(values):
            first = next(value for value, count in Counter(values).items() if count > 1)
            raise SourceError(
                f"{path}: {len(values)} rows have only {len(set(values))} different {name}: "
                f"{first} occurs twice"
            )
    return rows


def _row(fields: dict[str, str], column: str, path: Path, line: int) -> Row:
    where = f"{path}, line {line}"
    whole = {}
    for name in ("ecg_id", "patient_id", "strat_fold"):  # patient 15709 is written 15709.0
        try:
            whole[name] = integer(fields[name])
        except ValueError as error:
            raise SourceError(f"{where}: {name} {error}") from None
    fold, stem = whole["strat_fold"], fields[column]
    if not 1 <= fold <= 10:
        raise SourceError(f"{where}: strat_fold {fold} is not in 1-10")
    parts = stem.split("/")
    if not all(parts) or ".." in parts or "." in parts or "\0" in stem:
        raise SourceError(f"{where}: {column} {stem[:80]!r} leaves the folder or is no file's name")
    return Row(
        ecg_id=str(whole["ecg_id"]),
        patient_id=str(whole["patient_id"]),
        fold=fold,
        stem=stem,
        fields={name: fields[name] for name in _COLUMNS},
        recorded=fields.get("recording_date", ""),
    )


def example(
    source: Path,
    row: Row,
    rates: tuple[int, int],
    statements: Statements,
    sha256: Mapping[str, str],
) -> list[dict]:
    """The record's one example, from files of `rates[0]` Hz at `rates[1]`; raises RecordError."""
    source_rate, rate = rates
    codes = _parse_codes(row.fields["scp_codes"], statements)
    age, sex = _age(row.fields["age"]), _sex(row.fields["sex"])
    stem = source / row.stem
    ecg, lead_mask = read_wfdb(
        stem, rate, sha256=sha256, required_leads=LEADS, published_rate=source_rate
    )
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
            "scp_likelihood": _likelihoods(codes, statements),
            "age": np.float32(age),
            "sex": np.int32(sex),
            "recorded": np.float64(_days(row.recorded)),
        }
    ]


def _multi_hot(task: str, codes: Mapping[str, float], statements: Statements) -> np.ndarray:
    place = statements.places[task]
    y = np.zeros(len(place), np.uint8)
    for name in statements.present(task, codes):
        y[place[name]] = 1
    return y


def _likelihoods(codes: Mapping[str, float], statements: Statements) -> np.ndarray:
    """float32 [statements], -1 where one is not made."""
    place = statements.places["all"]
    found = np.full(len(place), -1, np.float32)
    for code, value in codes.items():
        found[place[code]] = value
    return found


def _parse_codes(text: str, statements: Statements) -> dict[str, float]:
    """{statement: likelihood in %} of a literal such as "{'NORM': 100.0, 'SR': 0.0}"."""
    if not _CODES.fullmatch(text):
        raise RecordError(f"ptbxl_database.csv: scp_codes {text[:60]!r} unreadable")
    pairs = _CODE.findall(text)
    codes = {code: float(value) for code, value in pairs}
    if len(codes) != len(pairs):
        raise RecordError(f"ptbxl_database.csv: a statement occurs twice in {text[:60]!r}")
    if unknown := codes.keys() - statements.places["all"].keys():
        raise RecordError(f"ptbxl_database.csv: unknown statement {', '.join(sorted(unknown))}")
    if not all(0 <= value <= 100 for value in codes.values()):
        raise RecordError(f"ptbxl_database.csv: likelihood outside 0-100 in {text[:60]!r}")
    return codes


def _days(text: str) -> float:
    """Days since 1970 of a time such as 1984-11-09 09:17:34; NaN where there is none."""
    if text in ("", "nan"):
        return math.nan
    try:
        moment = datetime.datetime.fromisoformat(text)
        return (moment - datetime.datetime(1970, 1, 1)) / datetime.timedelta(days=1)
    except (ValueError, TypeError):
        raise RecordError(
            f"ptbxl_database.csv: recording_date {text[:60]!r} is no date and time"
        ) from None


def _age(text: str) -> float:
    """In years, 300 for 90 and above; NaN where missing, which pandas writes as nan."""
    if text in ("", "nan"):
        return math.nan
    try:
        age = number(text)
    except ValueError as error:
        raise RecordError(f"ptbxl_database.csv: age {error}") from None
    if not 0 <= age <= 300:
        raise RecordError(f"ptbxl_database.csv: age {text} is not in 0-300")
    return age


def _sex(text: str) -> int:
    """0 male, 1 female, -1 where missing."""
    if not text:
        return -1
    try:
        sex = integer(text)
    except ValueError:
        sex = -1
    if sex not in (0, 1):
        raise RecordError(f"ptbxl_database.csv: sex {text[:60]!r} is neither 0 nor 1 nor empty")
    return sex


def patients_in_two_splits(splits: Mapping[str, list[Row]]) -> Iterator[str]:
    """Patients whose records lie in more than one split."""
    seen: dict[str, str] = {}
    for split, rows in splits.items():
        for row in rows:
            if seen.setdefault(row.patient_id, split) != split:
                yield row.patient_id
