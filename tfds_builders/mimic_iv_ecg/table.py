"""MIMIC-IV-ECG's two tables, 800,000 rows each, in some 100 bytes a row."""

import bisect
import re
from array import array
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfds_builders.errors import SourceError
from tfds_builders.table import integer, stream_table

RECORDS, MACHINE = "record_list.csv", "machine_measurements.csv"
LINES = tuple(f"report_{i}" for i in range(18))
# Times in ms, axes in degrees.
TIMES = ("rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end")
AXES = ("p_axis", "qrs_axis", "t_axis")
MEASUREMENTS = (*TIMES, *AXES)
DEVICE = ("cart_id", "bandwidth", "filtering")
# What no heart has in ten seconds, such as 29,999, stands for "not measured".
MAX_TIME_MS, MAX_AXIS_DEGREES = 10_000, 360

_FILE = re.compile(r"files/p(\d{4})/p(\d{8})/s(\d{8})/(\d{8})((?:\.\w+)?)")
_SIGNED = re.compile(r"-?\d{1,9}(?:\.0*)?")


class Row(NamedTuple):
    """One record's part of both tables; `measurements` float32 [9], NaN where not measured."""

    subject: int
    study: int
    lines: tuple[str, ...]
    measurements: np.ndarray
    device: tuple[str, str, str]

    @property
    def stem(self) -> str:
        return stem_of(self.subject, self.study)


def stem_of(subject: int, study: int) -> str:
    """Path of a record's files without their suffix."""
    return f"files/p{subject // 10_000}/p{subject}/s{study}/{study}"


def place(path: str) -> tuple[int, int, str] | None:
    """(subject, study, suffix) of a path below the root; None where no record's file lies so."""
    if not (match := _FILE.fullmatch(path)) or match[3] != match[4] or match[2][:4] != match[1]:
        return None
    return int(match[2]), int(match[3]), match[5]


class Table:
    """The records of `record_list.csv`, by study, with what `machine_measurements.csv` has of them.

    Attributes:
      subject, study: int64 [N], by study.
      measured: bool [N], false where the second table has no row.
      foreign: rows of the second table that the first does not list.
      vocabulary: all different lines of reports.
      counts: int64 [len(vocabulary)], how many records have each.
    """

    def __init__(self, root: Path):
        """Raises SourceError where a table can't be used."""
        self.subject, self.study = _listed(root / RECORDS)
        N = len(self.study)
        self.measured = np.zeros(N, bool)
        self.foreign = 0
        self.vocabulary: list[str] = []
        self._words: dict[str, int] = {}
        self._devices: dict[str, int] = {}
        self._names: list[str] = []
        self._lines = array("I")
        self._begin = np.zeros(N, np.int64)
        self._count = np.zeros(N, np.uint8)
        self._measurements = np.full((N, len(MEASUREMENTS)), np.nan, np.float32)
        self._device = np.zeros((N, len(DEVICE)), np.int32)
        self._read(root / MACHINE)
        self.counts = np.bincount(
            np.frombuffer(self._lines, np.uint32) if self._lines else np.zeros(0, int),
            minlength=len(self.vocabulary),
        )

    def __len__(self) -> int:
        return len(self.study)

    def index(self, study: int) -> int:
        """The row of a study, -1 where it is not listed."""
        at = bisect.bisect_left(self._studies, study)
        return at if at < len(self._studies) and self._studies[at] == study else -1

    def row(self, i: int) -> Row:
        begin, subject, study = self._begin[i], int(self.subject[i]), int(self.study[i])
        lines = self._lines[begin : begin + self._count[i]]
        cart, bandwidth, filtering = (self._names[k] for k in self._device[i])
        return Row(
            subject,
            study,
            tuple(self.vocabulary[k] for k in lines),
            self._measurements[i],
            (cart, bandwidth, filtering),
        )

    def _read(self, path: Path) -> None:
        self._studies = array("q", self.study.tobytes())
        what = "MIMIC-IV-ECG's table of reports and measurements"
        columns = ("subject_id", "study_id", *DEVICE, *LINES, *MEASUREMENTS)
        with stream_table(path, columns, what) as table:
            for line, cells in table:
                self._add(cells, f"{path}, line {line}")

    def _add(self, cells: dict[str, str], where: str) -> None:
        subject, study = (_id(cells, name, where) for name in ("subject_id", "study_id"))
        if (i := self.index(study)) < 0:
            self.foreign += 1
            return
        if self.subject[i] != subject:
            raise SourceError(
                f"{where}: study {study} is of subject {subject}, {RECORDS} says {self.subject[i]}"
            )
        if self.measured[i]:
            raise SourceError(f"{where}: study {study} occurs twice")
        self.measured[i] = True
        self._begin[i] = len(self._lines)
        said = [cells[name] for name in LINES if cells[name].strip()]
        self._lines.extend(_code(text, self._words, self.vocabulary) for text in said)
        self._count[i] = len(said)
        self._device[i] = [_code(cells[name], self._devices, self._names) for name in DEVICE]
        self._measurements[i] = [_measurement(cells, name, where) for name in MEASUREMENTS]


def _listed(path: Path) -> tuple[np.ndarray, np.ndarray]:
    subjects, studies = array("q"), array("q")
    columns = ("subject_id", "study_id", "file_name", "path")
    what = "--source is MIMIC-IV-ECG's own folder"
    with stream_table(path, columns, what) as table:
        for line, cells in table:
            subject, study = _listed_ids(cells, f"{path}, line {line}")
            subjects.append(subject)
            studies.append(study)
    subject, study = (
        np.frombuffer(a, np.int64) if a else np.zeros(0, int) for a in (subjects, studies)
    )
    order = np.argsort(study, kind="stable")
    subject, study = subject[order], study[order]
    if (twice := np.flatnonzero(study[1:] == study[:-1])).size:
        raise SourceError(f"{path}: study {study[twice[0]]} occurs twice")
    return subject, study


def _listed_ids(cells: dict[str, str], where: str) -> tuple[int, int]:
    subject, study = (_id(cells, name, where) for name in ("subject_id", "study_id"))
    if place(cells["path"]) != (subject, study, "") or cells["file_name"] != str(study):
        raise SourceError(
            f"{where}: path {cells['path'][:80]!r} and file_name {cells['file_name'][:20]!r} "
            f"are not those of study {study} of subject {subject}"
        )
    return subject, study


def _id(cells: dict[str, str], name: str, where: str) -> int:
    try:
        value = integer(cells[name])
    except ValueError as error:
        raise SourceError(f"{where}: {name} {error}") from None
    if not 10**7 <= value < 10**8:
        raise SourceError(f"{where}: {name} {value} has not eight digits")
    return value


def _code(text: str, codes: dict[str, int], names: list[str]) -> int:
    if (code := codes.get(text)) is None:
        code = codes[text] = len(names)
        names.append(text)
    return code


def _measurement(cells: dict[str, str], name: str, where: str) -> float:
    """NaN where the cell is empty or holds a code for "not measured"."""
    text = cells[name].strip()
    if not text:
        return np.nan
    if not _SIGNED.fullmatch(text):
        raise SourceError(f"{where}: {name} {text[:40]!r} is not a whole number")
    value = float(text)
    if name in AXES:
        return value if abs(value) <= MAX_AXIS_DEGREES else np.nan
    return value if 0 <= value <= MAX_TIME_MS else np.nan
