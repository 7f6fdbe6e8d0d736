"""A table of one's own recordings, of any columns, read strictly."""

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tfds_builders.errors import SourceError
from tfds_builders.table import read_table

FIELDS = ("id", "path", "report", "patient", "split", "labels", "age", "sex")
MANY = ("report", "labels")  # fields of several columns
SPLITS = ("train", "validation", "test")
SHARES = (0.7, 0.1, 0.2)  # of the patients, where no column says
_SPLIT_OF = {"train": "train", "training": "train", "validation": "validation", "val": "validation"}
_SPLIT_OF |= {"valid": "validation", "dev": "validation", "test": "test", "testing": "test"}
_YES = {"1": True, "1.0": True, "true": True, "yes": True}
_YES |= {"0": False, "0.0": False, "false": False, "no": False, "": False}
_SEX = {"m": 0, "male": 0, "0": 0, "f": 1, "female": 1, "1": 1}
_NOTHING = ("", "nan", "none", "null")
_LABELS = re.compile(r"[\n;|]+")
_QUOTED = re.compile(r"""\[(?:\s*(?:'[^']*'|"[^"]*")\s*,?)*\s*\]""")
_COLUMN = re.compile(r"\{([^{}]+)\}")


@dataclasses.dataclass(frozen=True)
class Row:
    """One recording as the table has it; `labels` and `report` as they will be stored, `age` in
    years or None, `sex` 0 male, 1 female, -1 unknown."""

    record_id: str
    path: str
    patient_id: str
    split: str
    report: str
    labels: tuple[str, ...]
    age: float | None
    sex: int


@dataclasses.dataclass(frozen=True)
class Table:
    """Attributes:
    rows: the recordings, in the table's order.
    classes: what there are labels of, in alphabetical order.
    notes: what a user should know of it, a sentence each.
    """

    rows: tuple[Row, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def columns(text: str) -> dict[str, str]:
    """`id=ID,path=data/{ID},labels=a|b` -> {field: what the table calls it}; raises SourceError."""
    found: dict[str, str] = {}
    for item in text.split(","):
        field, equals, name = item.partition("=")
        if not equals or not name.strip():
            raise SourceError(f"--columns: {item!r}: write FIELD=COLUMN, such as id=ID")
        if field.strip() not in FIELDS:
            raise SourceError(f"--columns: unknown field {field!r}: there are {', '.join(FIELDS)}")
        if field.strip() in found:
            raise SourceError(f"--columns: {field} is said twice: several columns are a|b|c")
        found[field.strip()] = name.strip()
    if missing := [field for field in ("id", "path") if field not in found]:
        raise SourceError(f"--columns: lacks {' and '.join(missing)}")
    return found


def read(path: Path, said: Mapping[str, str], *, seed: int = 0, least: int = 1) -> Table:
    """Reads the table.

    Args:
      path: a CSV file in UTF-8.
      said: of `columns`.
      seed: of splits that are drawn.
      least: how many recordings a label must have; of rarer ones nothing is kept.

    Raises:
      SourceError: a column that there is not, an id or a path that occurs twice or leads out of the
        folder, a patient in two splits, labels or splits that can't be understood.
    """
    lines = read_table(path, _needed(said), "--table names the recordings")
    if not lines:
        raise SourceError(f"{path}: holds no recordings")
    cells = [(f"{path}, line {n}", {k: v.strip() for k, v in row.items()}) for n, row in lines]
    ids = [row[said["id"]] for _, row in cells]
    paths = [_path(where, row, said["path"]) for where, row in cells]
    for what, values in (("id", ids), ("path", paths)):
        value, often = Counter(values).most_common(1)[0]
        if often > 1:
            raise SourceError(f"{path}: {what} {value!r} occurs {often} times")
        if "" in values:
            raise SourceError(f"{path}: a recording without {what}")
    notes = []
    patients = ids
    if "patient" in said:
        patients = [row[said["patient"]] for _, row in cells]
        if "" in patients:
            raise SourceError(f"{cells[patients.index('')][0]}: a recording without patient")
    else:
        notes.append("no patient column: every recording counts as a patient of its own")
    labels, dropped = _kept(_labels(cells, said), least)
    if dropped:
        few = ", ".join(f"{name} ({count})" for name, count in dropped[:5])
        more = ", ..." if len(dropped) > 5 else ""
        notes.append(f"labels of fewer than {least} recordings, left out: {few}{more}")
    splits = _splits(path, cells, said, patients, seed)
    if "split" not in said:
        notes.append(f"splits drawn by patient, seed {seed}")
    rows = tuple(
        Row(
            record_id=ids[i],
            path=paths[i],
            patient_id=patients[i],
            split=splits[i],
            report=_report(row, said),
            labels=labels[i],
            age=_age(where, row.get(said.get("age", ""), "")),
            sex=_sex(where, row.get(said.get("sex", ""), "")),
        )
        for i, (where, row) in enumerate(cells)
    )
    classes = tuple(sorted({label for own in labels for label in own}))
    return Table(rows, classes, tuple(notes))


def _needed(said: Mapping[str, str]) -> list[str]:
    """The columns that the table must have."""
    needed: list[str] = []
    for field, name in said.items():
        if field in MANY:
            needed += name.split("|")
        elif field == "path" and "{" in name:
            needed += _COLUMN.findall(name)
        else:
            needed.append(name)
    return needed


def _path(where: str, row: Mapping[str, str], name: str) -> str:
    text = _COLUMN.sub(lambda m: row[m[1]], name) if "{" in name else row[name]
    parts = text.split("/")
    if text.startswith("/") or "\\" in text or "\0" in text or ".." in parts:
        raise SourceError(f"{where}: path {text[:80]!r} leads out of --source, or is absolute")
    return "/".join(part for part in parts if part not in ("", "."))


def _report(row: Mapping[str, str], said: Mapping[str, str]) -> str:
    """Of several columns, each that holds something is a sentence."""
    if "report" not in said:
        return ""
    names = said["report"].split("|")
    if len(names) == 1:
        return "" if row[names[0]].casefold() in _NOTHING else row[names[0]]
    texts = [part for name in names for part in _split(row[name])]
    return " ".join(text if text.endswith(".") else f"{text}." for text in texts)


def _labels(
    cells: Sequence[tuple[str, Mapping[str, str]]], said: Mapping[str, str]
) -> list[list[str]]:
    """Of columns of yes and no their names; of others the texts in them."""
    names = said["labels"].split("|") if "labels" in said else []
    if all(row[name].casefold() in _YES for _, row in cells for name in names):
        return [[name for name in names if _YES[row[name].casefold()]] for _, row in cells]
    return [
        list(dict.fromkeys(text for name in names for text in _split(row[name])))
        for _, row in cells
    ]


def _split(cell: str) -> list[str]:
    """The texts of a cell: lines, or parted by ; or |, or a list in brackets."""
    if cell.startswith("[") and cell.endswith("]"):
        if not _QUOTED.fullmatch(cell):
            raise SourceError(f"not a list of quoted texts: {cell[:80]!r}")
        parts = [a or b for a, b in re.findall(r"""'([^']*)'|"([^"]*)\"""", cell)]
    else:
        parts = _LABELS.split(cell)
    texts = (" ".join(part.split()) for part in parts)
    return [text for text in texts if text.casefold() not in _NOTHING]


def _kept(
    labels: list[list[str]], least: int
) -> tuple[list[tuple[str, ...]], list[tuple[str, int]]]:
    """Labels of at least so many recordings, and those of fewer."""
    count = Counter(label for own in labels for label in own)
    kept = [tuple(label for label in own if count[label] >= least) for own in labels]
    return kept, [(name, n) for name, n in count.most_common() if n < least]


def _splits(
    path: Path,
    cells: Sequence[tuple[str, Mapping[str, str]]],
    said: Mapping[str, str],
    patients: Sequence[str],
    seed: int,
) -> list[str]:
    if "split" not in said:
        drawn = draw(patients, seed)
        return [drawn[patient] for patient in patients]
    splits, seen = [], {}
    for (where, row), patient in zip(cells, patients, strict=True):
        text = row[said["split"]]
        split = _SPLIT_OF.get(text.casefold())
        if split is None:
            raise SourceError(f"{where}: split {text[:60]!r} is none of {', '.join(SPLITS)}")
        if seen.setdefault(patient, split) != split:
            raise SourceError(f"{where}: patient {patient!r} is in {seen[patient]} and in {split}")
        splits.append(split)
    if missing := [split for split in SPLITS if split not in splits]:
        raise SourceError(f"{path}: no recording is in {', '.join(missing)}")
    return splits


def draw(patients: Sequence[str], seed: int) -> dict[str, str]:
    """patient -> split. Patients are ordered by a hash of seed and name and cut at `SHARES`, so
    that no split is empty where there are three of them.

    Raises:
      SourceError: there are fewer.
    """
    distinct = sorted(
        set(patients), key=lambda p: hashlib.sha256(json.dumps([seed, p]).encode()).digest()
    )
    n = len(distinct)
    if n < len(SPLITS):
        raise SourceError(f"{n} patients can't be divided into {', '.join(SPLITS)}")
    validation, test = (max(1, round(share * n)) for share in SHARES[1:])
    names = ["validation"] * validation + ["test"] * test
    names = ["train"] * (n - len(names)) + names
    return dict(zip(distinct, names, strict=True))


def _age(where: str, text: str) -> float | None:
    if text.casefold() in _NOTHING:
        return None
    try:
        age = float(text.lstrip(">"))
    except ValueError:
        age = -1.0
    if not 0 <= age <= 130:
        raise SourceError(f"{where}: age {text[:60]!r} is not in years")
    return age


def _sex(where: str, text: str) -> int:
    if text.casefold() in _NOTHING:
        return -1
    if text.casefold() not in _SEX:
        raise SourceError(f"{where}: sex {text[:60]!r}: write F and M, female and male, or 1 and 0")
    return _SEX[text.casefold()]
