"""Tables in CSV, read strictly: a cell is in one column, and a number is what is written."""

import contextlib
import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from tfds_builders.errors import RecordError, SourceError

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
    return list(_rows(io.StringIO(read_text(path, what), newline=""), path, required))


@contextlib.contextmanager
def stream_table(
    path: Path, required: Sequence[str], what: str
) -> Iterator[Iterator[tuple[int, dict[str, str]]]]:
    """`read_table` one row after another, for a table that need not be in memory as a whole."""
    try:
        with path.open("rb") as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
            yield _rows(text, path, required)
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file ({what})") from None
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not text in UTF-8 ({error})") from None
    except RecordError as error:  # an archive's
        raise SourceError(str(error)) from None


def _rows(text: TextIO, path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict]]:
    reader = csv.reader(text, strict=True)
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
            yield reader.line_num, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise SourceError(f"{path}, line {reader.line_num}: not a table ({error})") from None


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
