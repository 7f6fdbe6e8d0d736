"""From the lines of a machine's report to findings, flags of quality, and labels.

The tables beside this file say which words mean what: statements.tsv, classes.tsv, quality.tsv. All
of it is the machine's word: docs/mimic.md says what that is worth.
"""

import functools
import importlib.resources
import re
from collections.abc import Iterable
from typing import NamedTuple

from tfds_builders.errors import SourceError

# How sure a line is of a finding, by the words before it or within. PTB-XL gives per cent instead.
STATED, PROBABLE, POSSIBLE = 3, 2, 1
CERTAINTY = {STATED: "stated", PROBABLE: "probable", POSSIBLE: "possible"}
_POSSIBLE = re.compile(
    r"\bpossibl[ey]\b|\bconsider\b|\bmay be\b|\brule out\b|\bcan ?not (be )?exclude|\bsuspect|\?"
)
_PROBABLE = re.compile(r"\bprobabl[ey]\b|\blikely\b|\bsuggest|\bconsistent with\b|\bpresum")
# A value at its limit is not beyond it.
_DENIED = re.compile(r"\bno\b|\bnot\b|\bnor\b|\bwithout\b|\bborderline\b")
_PART = re.compile(r",|;| - | with ")  # what stands before says nothing of what comes after

# wall of the heart: its letters in PTB-XL's statements of infarction and of ischaemia, "" for none
WALLS = {
    r"(antero-?lateral|ant(erior)?[/ -]lateral)": ("AL", "AL"),
    r"(antero-?septal|ant(erior)?[/ -]septal|septal)": ("AS", "AS"),
    r"(infero-?lateral|inf(erior)?[/ -]lateral)": ("IL", "IL"),
    r"(infero-?posterior|inf(erior)?[/ -]posterior)": ("IP", ""),
    r"(high )?lateral": ("L", "LA"),
    r"inferior": ("I", "IN"),
    r"(extensive )?anterior": ("A", "AN"),
    r"posterior": ("P", ""),
}
SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
CPSC = ("Normal", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE")


class Report(NamedTuple):
    """What a machine's report says.

    Attributes:
      text: its findings, each a sentence; empty where no line is one.
      flags: of FLAGS, those that its other lines raise.
      certainty: {code of classes.tsv, or super:CLASS: POSSIBLE, PROBABLE or STATED}.
    """

    text: str
    flags: frozenset[str]
    certainty: dict[str, int]


def read_report(lines: Iterable[str]) -> Report:
    """A report of its lines in order; those that are empty say nothing."""
    kept, flags, certainty = [], set(), {}
    for line in lines:
        tidy = " ".join(line.split()).strip("* ").removesuffix(".").strip()
        if not tidy:
            continue
        if flag := flag_of(tidy.lower()):
            flags.add(flag)
            continue
        kept.append(tidy)
        for code, level in findings_of(tidy.lower()).items():
            certainty[code] = max(level, certainty.get(code, 0))
    return Report(" ".join(f"{line}." for line in kept), frozenset(flags), certainty)


@functools.lru_cache(1 << 14)
def flag_of(line: str) -> str:
    """The flag of a line that is no finding; empty for one that is. `line` as `read_report` makes
    it."""
    return next((flag for flag, pattern in _quality() if pattern.search(line)), "")


@functools.lru_cache(1 << 14)
def findings_of(line: str) -> dict[str, int]:
    """{code: certainty} of one line, which is in lower case."""
    found: dict[str, int] = {}
    for codes, pattern in _statements():
        for match in pattern.finditer(line):
            level = _certainty(line, match)
            for code in codes if level else ():
                found[code] = max(level, found.get(code, 0))
        line = pattern.sub(lambda match: "#" * len(match.group()), line)
    return found


def _certainty(line: str, match: re.Match[str]) -> int:
    """0 where the words before a match deny it."""
    before = _PART.split(line[: match.start()])[-1]
    if _DENIED.search(before):
        return 0
    words = before + match.group()
    if _POSSIBLE.search(words):
        return POSSIBLE
    return PROBABLE if _PROBABLE.search(words) else STATED


def superclasses(certainty: Iterable[str]) -> set[str]:
    """PTB-XL's superclasses of the codes."""
    classes, known = classes_of("super"), set(certainty)
    own = {code.removeprefix("super:") for code in known if code.startswith("super:")}
    return own | {classes[code] for code in known if classes.get(code)}


def cpsc_classes(certainty: Iterable[str]) -> set[str]:
    """CPSC2018's classes of the codes: Normal is a normal ECG in sinus rhythm with no other one."""
    classes, known = classes_of("cpsc"), set(certainty)
    found = {classes[code] for code in known if classes.get(code)}
    return {"Normal"} if not found and {"NORM", "SR"} <= known else found


@functools.cache
def classes_of(column: str) -> dict[str, str]:
    """{code: cell} of a column of classes.tsv, in its order."""
    header, *rows = _rows("classes.tsv")
    return {row[0]: row[header.index(column)] for row in rows}


@functools.cache
def flags() -> tuple[str, ...]:
    """The flags of quality.tsv, in its order."""
    return tuple(dict.fromkeys(flag for flag, _ in _quality()))


@functools.cache
def _quality() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((flag, re.compile(pattern)) for flag, pattern in _rows("quality.tsv"))


@functools.cache
def _statements() -> tuple[tuple[tuple[str, ...], re.Pattern[str]], ...]:
    compiled = []
    for codes, pattern in _rows("statements.tsv"):
        walls = WALLS.items() if "{wall}" in pattern else [("", ("", ""))]
        for wall, (mi, isc) in walls:
            own = codes.replace("{mi}", mi).replace("{isc}", isc or "_")
            names = tuple(own.split()) if own != "-" else ()
            compiled.append((names, re.compile(pattern.replace("{wall}", wall))))
    known = {*classes_of("super"), *(f"super:{name}" for name in SUPERCLASSES)}
    if unknown := {name for names, _ in compiled for name in names} - known:
        raise SourceError(f"statements.tsv: {', '.join(sorted(unknown))} is not in classes.tsv")
    return tuple(compiled)


def _rows(name: str) -> list[list[str]]:
    text = (importlib.resources.files(__package__) / name).read_text("utf-8")
    return [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
