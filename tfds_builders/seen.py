"""Which signals a build has met, so that none is in two splits or has two sets of labels.

Some 40 bytes a record, since there may be 800,000.
"""

import hashlib
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

RECENT = 1 << 16  # records in a dict, of 170 bytes each, before they go into a sorted array


class Mark(NamedTuple):
    """What is kept of a record: hashes of 64 bits of its signal and of its labels."""

    record_id: str
    signal: int
    labels: int


def mark(example: dict[str, Any]) -> Mark:
    labels = b"".join(y.tobytes() for y in example["labels"].values())
    return Mark(
        example["record_id"],
        int.from_bytes(example["signal_digest"][:8], "big"),
        int.from_bytes(hashlib.sha256(labels).digest()[:8], "big"),
    )


class Seen:
    """The marks of the records taken so far."""

    def __init__(self):
        self._recent: dict[int, int] = {}
        self._signals, self._places = np.zeros(0, np.uint64), np.zeros(0, np.uint32)
        self._labels, self._split = array("Q"), array("B")
        self._splits: list[str] = []
        self._ids, self._end = bytearray(), array("Q", [0])

    def again(self, split: str, marks: Sequence[Mark]) -> str:
        """Takes one job's records, or says why they are not to be taken after others with equal
        signals; empty if they are."""
        found: dict[int, Mark] = {}
        for own in marks:
            if (at := self._find(own.signal)) >= 0:
                first, labels = self._id(at), self._labels[at]
                if (there := self._splits[self._split[at]]) != split:
                    return f"has the signal of record {first} in split {there}: a leak"
            else:
                _, _, labels = found.setdefault(own.signal, own)
                first = found[own.signal].record_id
            if labels != own.labels:
                return f"has the signal of record {first}, and other labels"
        for own in found.values():
            self._take(split, own)
        return ""

    def _take(self, split: str, own: Mark) -> None:
        if split not in self._splits:
            self._splits.append(split)
        self._recent[own.signal] = len(self._labels)
        self._labels.append(own.labels)
        self._split.append(self._splits.index(split))
        self._ids += own.record_id.encode()
        self._end.append(len(self._ids))
        if len(self._recent) >= RECENT:
            self._sort()

    def _find(self, signal: int) -> int:
        """Which of the records has a signal; -1 for none."""
        if (at := self._recent.get(signal)) is not None:
            return at
        if not len(self._signals):
            return -1
        at = int(np.searchsorted(self._signals, np.uint64(signal)))
        there = at < len(self._signals) and int(self._signals[at]) == signal
        return int(self._places[at]) if there else -1

    def _sort(self) -> None:
        """Takes the dict's records into the arrays, which are in the order of the signals."""
        count = len(self._recent)
        signals = np.fromiter(self._recent.keys(), np.uint64, count)
        places = np.fromiter(self._recent.values(), np.uint32, count)
        self._recent = {}
        signals = np.concatenate([self._signals, signals])
        order = np.argsort(signals, kind="stable")
        self._signals = signals[order]
        self._places = np.concatenate([self._places, places])[order]

    def _id(self, at: int) -> str:
        return self._ids[self._end[at] : self._end[at + 1]].decode()
