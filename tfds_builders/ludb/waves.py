"""From the marks of one lead to its waves and to what they say of every sample.

LUDB marks a wave as `(`, its peak (`p`, `N` or `t`) and `)`. Not every wave has both brackets: of
21,965 QRS complexes 103 have no onset, and 19 have both brackets beside their peak and not around
it. So a peak is paired with its own neighbours only: read as triples, everything behind a missing
bracket would be shifted.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfds_builders.errors import RecordError

# What a sample can be: the values of `segments`.
KINDS = ("none", "P", "QRS", "T")
PEAKS = {"p": 1, "N": 2, "t": 3}
# How far from a pair of brackets the peak may stand that it is of: 10 ms; at most 6 ms occur.
_BESIDE = 5
# Peaks of one kind so close (50 ms) are marks of one wave; record 116 has up to six of a T wave.
_TOGETHER = 25

Mark = tuple[int, str]


class Wave(NamedTuple):
    """Samples of a wave's peak and of its first and last sample, None where it is not marked."""

    kind: int
    onset: int | None
    peak: int
    offset: int | None


class Marked(NamedTuple):
    """The waves of a lead, and the stretches (first, last sample) within its annotated part in
    which the marks leave open what is what."""

    waves: list[Wave]
    doubtful: list[tuple[int, int]]


def pair(marks: Sequence[Mark], samples: int, where: Path) -> Marked:
    """Marks (sample, symbol) of a lead of so many samples; raises RecordError.

    Peaks of one kind that stand together are one wave, whose peak is the first.
    """
    _check(marks, samples, where)
    waves, used, i = [], set(), 0
    while i < len(marks):
        kind = PEAKS.get(marks[i][1])
        if kind is None:
            i += 1
            continue
        first = i
        while (
            i + 1 < len(marks)
            and PEAKS.get(marks[i + 1][1]) == kind
            and marks[i + 1][0] - marks[i][0] <= _TOGETHER
        ):
            i += 1
        onset, offset = _brackets(marks, first, i)
        used.update(j for j in (onset, offset) if j is not None)
        at = [None if j is None else marks[j][0] for j in (onset, offset)]
        waves.append(Wave(kind, at[0], marks[first][0], at[1]))
        i += 1
    _check_crossing(marks, waves, used, where)
    return Marked(waves, _doubtful(marks, waves, used))


def _check(marks: Sequence[Mark], samples: int, where: Path) -> None:
    if unknown := sorted({symbol for _, symbol in marks} - {"(", ")", *PEAKS}):
        raise RecordError(f"{where}: marks {unknown[0]!r}, known are ( p N t )")
    places = [sample for sample, _ in marks]
    if places and not 0 <= min(places) <= max(places) < samples:
        raise RecordError(f"{where}: marks outside the {samples} samples: is it another record's?")
    for one, two in itertools.pairwise(places):
        if two <= one:
            raise RecordError(f"{where}: mark at sample {two} does not come after that at {one}")


def _brackets(marks: Sequence[Mark], first: int, last: int) -> tuple[int | None, int | None]:
    """Indices of the brackets of the peaks at `first` to `last`."""

    def symbol(i: int) -> str:
        return marks[i][1] if 0 <= i < len(marks) else ""

    onset = first - 1 if symbol(first - 1) == "(" else None
    offset = last + 1 if symbol(last + 1) == ")" else None
    after, before = symbol(last + 1) + symbol(last + 2), symbol(first - 2) + symbol(first - 1)
    if onset is None and after == "()" and marks[last + 1][0] - marks[last][0] <= _BESIDE:
        return last + 1, last + 2
    if offset is None and before == "()" and marks[first][0] - marks[first - 1][0] <= _BESIDE:
        return first - 2, first - 1
    return onset, offset


def _check_crossing(marks: Sequence[Mark], waves: list[Wave], used: set[int], where: Path) -> None:
    """Raises RecordError where a wave stands open and a bracket further on would close it."""
    offsets = {wave.onset: wave.offset for wave in waves if wave.onset is not None}
    open_since, opened = None, 0
    for i, (sample, symbol) in enumerate(marks):
        if symbol == "(":
            opened += 1
            if i in used and offsets[sample] is None:
                open_since, opened = sample, 0
        elif symbol == ")" and i not in used and open_since is not None and opened == 1:
            raise RecordError(
                f"{where}: brackets cross: the wave that begins at sample {open_since} goes on "
                f"beyond the next one, to {sample}"
            )


def _doubtful(marks: Sequence[Mark], waves: list[Wave], used: set[int]) -> list[tuple[int, int]]:
    """From a wave without an onset back to the mark before it, from one without an offset on to
    the mark after it, and the same of brackets of no wave."""
    places = [sample for sample, _ in marks]
    index = {sample: i for i, sample in enumerate(places)}
    found = []

    def before(i: int) -> None:
        if i:
            found.append((places[i - 1] + 1, places[i] - 1))

    def after(i: int) -> None:
        if i + 1 < len(places):
            found.append((places[i] + 1, places[i + 1] - 1))

    for wave in waves:
        if wave.onset is None:
            before(index[wave.peak])
        if wave.offset is None:
            after(index[wave.peak])
    for i, (sample, symbol) in enumerate(marks):
        if symbol in "()" and i not in used:
            found.append((sample, sample))
            after(i) if symbol == "(" else before(i)
    return [(first, last) for first, last in found if first <= last]


def segments(marked: Marked, marks: Sequence[Mark], samples: int, step: int):
    """What the marks say of every `step`-th of so many samples.

    Returns:
      uint8 [ceil(samples / step)], an index into `KINDS`; and bool, false outside the annotated
      part (from the first mark to the last, and one sample kept on either side) and where the marks
      leave it open.
    """
    kind = np.zeros(samples, np.uint8)
    known = np.zeros(samples, np.bool_)
    if marks:
        known[max(0, marks[0][0] - step) : marks[-1][0] + step + 1] = True
    for first, last in marked.doubtful:
        known[first : last + 1] = False
    for wave in marked.waves:
        first = wave.peak if wave.onset is None else wave.onset
        last = wave.peak if wave.offset is None else wave.offset
        kind[first : last + 1] = wave.kind
        known[first : last + 1] = True
    return kind[::step], known[::step]
