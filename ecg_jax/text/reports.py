"""PTB-XL's reports: cleaning, and rendering of their German and Swedish phrases in English.

    python -m ecg_jax.text.reports ptbxl_database.csv

prints which share of the reports' words comes out as English, and the words that do not.
"""

import argparse
import csv
import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ecg_jax.errors import UserError, run_main
from ecg_jax.runtime import storage

GLOSSARY = Path(__file__).with_name("glossary.tsv")
ENGLISH = Path(__file__).with_name("english.txt")
LANGUAGES = ("english", "original")
KINDS = ("statement", "finding", "opening", "closing", "words")

# A report ends where one of these begins. The first two carry the labels of the record.
_TAILS = (
    r"\bedit:.*",
    r"consensus label derived from:.*",
    r"(?<!\S)4\.46(?!\S).*",  # version of the interpretation program, then its "unconfirmed report"
    r"(?<!\S)4\.4?$",  # the same, cut off by the width of the database's column
)
_BOILERPLATE = (
    r"\bunbestä\w*(?:\s+ber\w*)?",
    r"\bunconfirmed(?:\s+(?:report|ecg|interpretation))?\b\.?",
    r"\btrace only requested\b\.?",
    r"(?<!\S)[*!#|]+(?!\S)",
)
# What spreadsheets and data frames write where there is nothing.
_NOTHING = {"nan", "none", "null", "nil", "n/a", "na", "<na>", "undefined", "missing"}
_SPREADSHEET = re.compile(
    r"#(?:name\?|ref!|value!|n/a|div/0!|null!|num!|spill!|calc!)", re.IGNORECASE
)
_UNSEEN = re.compile(
    "[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]"
)  # zero-width, marks of direction
_ENDINGS = ("", "e", "er", "en", "es", "em", "t", "a")  # German and Swedish adjectives
_TOKEN = re.compile(r"\w+|[^\w\s]")
_LEADS = {"i", "ii", "iii", "avr", "avl", "avf"}


@dataclass(frozen=True)
class Piece:
    """Consecutive words of a report: one glossary phrase, or one token outside the glossary."""

    kind: str  # one of KINDS, or "raw"
    source: tuple[str, ...]
    english: str
    spaced: bool  # white space stood before it


def clean(report: str) -> str:
    """Strips boilerplate and leaked labels, repairs characters and white space. Empty of what says
    nothing: dots and dashes, `nan`, a spreadsheet's `#NAME?`, characters that nobody sees."""
    text = _UNSEEN.sub("", report)
    if text.strip().casefold() in _NOTHING or _SPREADSHEET.fullmatch(text.strip()):
        return ""
    text = _repair_characters(text)
    for pattern in _TAILS:
        text = re.sub(pattern, " ", text, flags=re.IGNORECASE | re.DOTALL)
    if text.isupper() or not re.search(r"[A-Z]", text):
        text = text.lower()  # PTB-XL's text is lower case but for its umlauts
    for pattern in _BOILERPLATE:
        text = re.sub(pattern, " ", text, flags=re.IGNORECASE)
    return " ".join(text.split()) if any(map(str.isalpha, text)) else ""


def to_english(report: str) -> str:
    """Cleans a report and renders its German and Swedish phrases; English is left as it is."""
    text = clean(report)
    pieces = translate(text)
    if all(piece.kind == "raw" for piece in pieces):
        return text
    return _join(pieces)


@functools.lru_cache(2**16)  # training, its fingerprint and each evaluation ask for the same ones
def render(report: str, language: str = "english") -> str:
    """The cleaned report, in English or in the language it was published in.

    Raises:
      UserError: `language` is neither "english" nor "original".
    """
    if language not in LANGUAGES:
        raise UserError(f"report language {language!r}: choose one of {', '.join(LANGUAGES)}")
    return to_english(report) if language == "english" else clean(report)


def sentences(text: str) -> list[str]:
    """A rendered report's sentences, each with its full stop."""
    return [part.strip() + "." for part in re.split(r"\.(?:\s+|$)", text) if part.strip()]


def translate(text: str) -> list[Piece]:
    """Splits a cleaned report into glossary phrases, the longest first, and other tokens."""
    glossary = load_glossary()
    longest = _longest_phrases()
    matches = list(_TOKEN.finditer(text))
    tokens = [match.group() for match in matches]
    keys = [_fold(token) for token in tokens]
    pieces, start = [], 0
    while start < len(tokens):
        stop = min(start + longest.get(keys[start], 0), len(tokens))
        while stop > start and tuple(keys[start:stop]) not in glossary:
            stop -= 1
        spaced = start > 0 and matches[start].start() > matches[start - 1].end()
        if stop > start:
            kind, english = glossary[tuple(keys[start:stop])]
        else:
            stop = start + 1
            kind, english = "raw", tokens[start]
        pieces.append(Piece(kind, tuple(tokens[start:stop]), english, spaced))
        start = stop
    return pieces


def coverage(reports: Iterable[str]) -> tuple[float, Counter[str]]:
    """The share of the cleaned reports' words that comes out as English.

    A word counts as English where a glossary phrase translates it or where `english.txt` or the
    glossary's English side lists it. Numbers, lead names and single letters are not counted.

    Returns:
      The share (1.0 where there is no word at all), and how often each other word occurs.
    """
    vocabulary = english_vocabulary()
    total, missing = 0, Counter()
    for report in reports:
        for piece in translate(clean(report)):
            words = [word.lower() for word in piece.source if _is_word(word)]
            total += len(words)
            if piece.kind == "raw":
                missing.update(word for word in words if word not in vocabulary)
    return 1.0 - missing.total() / max(total, 1), missing


@functools.cache
def load_glossary() -> dict[tuple[str, ...], tuple[str, str]]:
    """The glossary with its stars and regions written out: folded tokens -> (kind, English)."""
    rows = list(_glossary_rows())
    regions = [
        (spelling, english)
        for language, _, phrases, english in rows
        if language == "where"
        for phrase in phrases
        for spelling in _inflect(phrase)
    ]
    glossary: dict[tuple[str, ...], tuple[str, str]] = {}
    for language, kind, phrases, english in rows:
        if language == "where":
            continue
        for phrase in phrases:
            for source, target in _fill_region(phrase, english, regions):
                for spelling in _inflect(source):
                    key = tuple(_TOKEN.findall(_fold(spelling)))
                    if key != tuple(_TOKEN.findall(target)):  # the same word in both languages
                        glossary.setdefault(key, (kind, target))
    return glossary


@functools.cache
def _longest_phrases() -> dict[str, int]:
    """First token -> the number of tokens in the longest phrase that begins with it."""
    longest: dict[str, int] = {}
    for key in load_glossary():
        longest[key[0]] = max(longest.get(key[0], 0), len(key))
    return longest


@functools.cache
def english_vocabulary() -> frozenset[str]:
    """Lower-case words of `english.txt` and of the glossary's English side."""
    listed = " ".join(line for line in _read_lines(ENGLISH) if not line.startswith("#")).split()
    rendered = (english for _, english in load_glossary().values())
    return frozenset(listed) | {word for text in rendered for word in _TOKEN.findall(text)}


def _glossary_rows() -> Iterator[tuple[str, str, list[str], str]]:
    for number, line in enumerate(_read_lines(GLOSSARY), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) != 4 or fields[1] not in KINDS or not all(fields):
            raise UserError(
                f"{GLOSSARY}, line {number}: expected language, kind ({', '.join(KINDS)}), "
                f"phrase and English between tabs, got {line!r}"
            )
        language, kind, phrases, english = fields
        yield language, kind, phrases.split(" | "), english


def _read_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _inflect(phrase: str) -> Iterator[str]:
    stems = phrase.split("*")
    for endings in itertools.product(_ENDINGS, repeat=len(stems) - 1):
        yield "".join(map("".join, itertools.zip_longest(stems, endings, fillvalue="")))


def _fill_region(
    phrase: str, english: str, regions: list[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    if "{where}" not in phrase:
        yield phrase, english
        return
    for region, region_in_english in regions:
        yield phrase.replace("{where}", region), english.replace("{where}", region_in_english)


def _fold(text: str) -> str:
    text = text.lower()
    for letter, pair in (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("ß", "ss")):
        text = text.replace(letter, pair)
    return text


def _is_word(token: str) -> bool:
    return len(token) > 1 and token.isalpha() and token.lower() not in _LEADS


def _repair_characters(text: str) -> str:
    text = re.sub(r"Ã.", _decode_twice, text)  # UTF-8 taken for a one-byte code: "fÃ¼r"
    text = re.sub(r"ó?[¬½¿©]|(?<!\S)ó(?=\s|$)", " ", text)  # the printer's line-drawing characters
    text = re.sub(r"(?<=ei|au|eu)á|(?<=[öüÖÜ])á", "ß", text)  # code page 437: "schweiáausbruch"
    text = re.sub(r"(?<=[a-z])#(?=[a-z])|(?<!\S)#(?=b[elr])", "ü", text)  # "f#r", "#bergang"
    return re.sub(r"(?<=[a-z])[ÄÖÜÅ]|[ÄÖÜÅ](?=[a-z])", lambda m: m.group().lower(), text)


def _decode_twice(match: re.Match[str]) -> str:
    for codec in ("cp1252", "latin-1"):
        try:
            return match.group().encode(codec).decode("utf-8")
        except UnicodeError:
            continue
    return match.group()


def _join(pieces: list[Piece]) -> str:
    """English text with a full stop before and after every statement."""
    text, before = "", ""
    for piece in pieces:
        punctuation = piece.kind == "raw" and not piece.english.isalnum()
        if piece.kind == "closing" or (punctuation and piece.english in ",;:()/"):
            text = text.removesuffix(".")  # the sentence goes on
        elif _starts_sentence(piece.kind, before, text):
            text += "."
        if piece.english.startswith(","):
            text = text.removesuffix(",")
        elif piece.spaced or (text.endswith(".") and before != "raw"):
            text += " "
        text += piece.english
        if piece.kind in ("statement", "closing"):
            text += "."
        before = piece.kind
    return text.strip()


def _starts_sentence(kind: str, before: str, text: str) -> bool:
    """Whether a full stop belongs between `text` and a piece of this kind."""
    if kind not in ("statement", "finding", "opening") or not text or text[-1] in ".,:;(/-&":
        return False
    return before in ("raw", "finding") or (kind != "statement" and before == "closing")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("csv", type=storage.expanded, help="a table with a column 'report'")
    parser.add_argument("--top", type=int, default=20, help="how many words to list")
    args = parser.parse_args()
    reports = _read_reports(args.csv)
    share, missing = coverage(reports)
    cleaned = [clean(report) for report in reports]
    raw_empty = sum(not report.strip() for report in reports)
    print(f"{len(reports)} reports, {len(set(cleaned))} distinct after cleaning")
    print(f"{raw_empty} empty as published, {sum(not text for text in cleaned)} after cleaning")
    print(f"{share:.2%} of words come out as English; {len(missing)} distinct words do not:")
    print(" ".join(f"{word} ({n})" for word, n in missing.most_common(args.top)))


def _read_reports(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; give PTB-XL's ptbxl_database.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if "report" not in (rows.fieldnames or ()):
            raise UserError(f"{path}: no column 'report'; give PTB-XL's ptbxl_database.csv")
        return [row["report"] or "" for row in rows]


if __name__ == "__main__":
    run_main(main)
