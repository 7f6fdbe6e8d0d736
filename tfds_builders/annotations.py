"""WFDB annotation files, read by wfdb and refused where they are cut short or say nothing."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tfds_builders.errors import RecordError
from tfds_builders.files import capitals

SKIP, AUX = 59, 63  # codes of a time of four bytes, and of a note
DEFINITIONS = (b"## annotation type definitions", b"## end of definitions")


class Annotation(NamedTuple):
    """One mark: its sample, its code, and the note beside it, empty where there is none."""

    sample: int
    symbol: str
    note: str


def read_annotations(stem: Path, extension: str, rate: float) -> list[Annotation]:
    """Those of the file `stem`.`extension`, in its order; raises RecordError.

    `rate` in Hz is that of the record, which the file may state.
    """
    import wfdb  # 1 s to import, and needed for these files alone

    path = stem.with_name(f"{stem.name}.{extension}")
    if not path.is_file():
        raise RecordError(f"{path}: no such file{capitals(path)}")
    data = path.read_bytes()
    if data[-2:] != b"\0\0":
        raise RecordError(f"{path}: truncated, it does not end in an end-of-file annotation")
    if not data.strip(b"\0"):
        raise RecordError(f"{path}: holds no annotations")
    if not _defined(list(_notes(data))):  # wfdb 4.3.1 would not return
        raise RecordError(f"{path}: unreadable annotations (a note after ## that WFDB lacks)")
    try:
        found = wfdb.rdann(str(stem), extension)
    except Exception as error:
        raise RecordError(f"{path}: unreadable annotations ({error})") from error
    if found.fs not in (None, rate):
        raise RecordError(f"{path}: annotated at {found.fs} Hz, not {rate} Hz")
    if not len(found.sample) == len(found.symbol) == len(found.aux_note):
        raise RecordError(f"{path}: unreadable annotations (marks without a code)")
    columns = found.sample.tolist(), found.symbol, found.aux_note
    marks = [Annotation(*mark) for mark in zip(*columns, strict=True)]
    if unknown := [mark.sample for mark in marks if not isinstance(mark.symbol, str)]:
        raise RecordError(f"{path}: the mark at sample {unknown[0]} has a code that WFDB lacks")
    return marks


def _notes(data: bytes) -> Iterator[bytes]:
    """The notes of an annotation file: its words are 16 bits, a code in the upper six."""
    at = 0
    while at + 1 < len(data):
        code, length = data[at + 1] >> 2, data[at]
        at += 2
        if code == SKIP:
            at += 4
        elif code == AUX:
            yield data[at : at + length]
            at += length + length % 2


def _defined(notes: list[bytes]) -> bool:
    """Whether what notes say of the file itself is what WFDB defines: the rate, once, and
    definitions of codes, which end."""
    said = [note for note in notes if note.startswith(b"## ")]
    rates = [note for note in said if re.match(rb"## time resolution: \d", note)]
    said = [note for note in said if note not in rates]
    return len(rates) <= 1 and said == list(DEFINITIONS) * (len(said) // 2)
