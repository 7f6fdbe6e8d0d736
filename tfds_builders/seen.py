"""Which signals a build has met, so that none is in two splits or has two sets of labels.

Some 200 bytes a record, since there may be 800,000.
"""

import hashlib
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple


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
        self._place: dict[int, int] = {}
        self._labels, self._split = array("Q"), array("B")
        self._splits: list[str] = []
        self._ids, self._end = bytearray(), array("Q", [0])

    def again(self, split: str, marks: Sequence[Mark]) -> str:
        """Takes one job's records, or says why they are not to be taken after others with equal
        signals; empty if they are."""
        found: dict[int, Mark] = {}
        for own in marks:
            if (at := self._place.get(own.signal)) is not None:
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
        self._place[own.signal] = len(self._labels)
        self._labels.append(own.labels)
        self._split.append(self._splits.index(split))
        self._ids += own.record_id.encode()
        self._end.append(len(self._ids))

    def _id(self, at: int) -> str:
        return self._ids[self._end[at] : self._end[at + 1]].decode()
