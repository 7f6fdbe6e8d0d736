"""Tables in CSV, read strictly: a cell is in one column, and a number is what is written."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from tfds_builders.errors import SourceError

_INTEGER = re.compile(r"(\d{1,18})(?:\.0*)?")
_NUMBER = re.compile(r"-?\d{1,18}(?:\.\d*)?")


def read_text(path: Path, what: str) -> str:
    """A text in UTF-8, with or without a byte order mark; raises SourceError."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file ({what})") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not text in UTF-8 ({error})") from None


def read_table(path: Path, required: Sequence[str], what: str) -> list[tuple[int, dict[str, str]]]:
    """(line, {column: cell}) of every row; raises SourceError, which tells `what` the table is.

    Rows whose cells are all empty, as spreadsheets append them, are left out.
    """
    reader = csv.reader(io.StringIO(read_text(path, what), newline=""), strict=True)
    rows = []
    try:
        names = next(reader, [])
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise SourceError(f"{path}: column {', '.join(map(repr, twice))} occurs twice")
        if missing := sorted(set(required) - set(names)):
            raise SourceError(f"{path}: lacks column {', '.join(map(repr, missing))}")
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(names):
                raise SourceError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells for {len(names)} columns: "
                    "is the file cut short?"
                )
            rows.append((reader.line_num, dict(zip(names, cells, strict=True))))
    except csv.Error as error:
        raise SourceError(f"{path}, line {reader.line_num}: not a table ({error})") from None
    return rows


def integer(text: str) -> int:
    """A whole number without a sign, 12 or 12.0; raises ValueError. No digit is lost."""
    if match := _INTEGER.fullmatch(text):
        return int(match[1])
    raise ValueError(f"{text[:60]!r} is not a whole number")


def number(text: str) -> float:
    """A plain decimal; raises ValueError (for `1,0`, `1e9` and `inf`, too)."""
    if _NUMBER.fullmatch(text):
        return float(text)
    raise ValueError(f"{text[:60]!r} is not a plain number")
