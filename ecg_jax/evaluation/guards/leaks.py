"""A test record that training has seen, by its patient, its id or its signal, fails the run."""

import collections
import re

import numpy as np

from ecg_jax.data.records import Records, check_disjoint
from ecg_jax.errors import UserError

_SHOWN = 3
_SEGMENT = re.compile(r"(.+?)[_/:.-](?:seg(?:ment)?[_-]?)?\d+")
_MOST_SEGMENTS = 40  # of a recording
_LEAST_RECORDINGS = 3


def check_leaks(*splits: Records) -> None:
    """Raises a UserError if two splits share a patient, a record id, a recording or parts of one.

    Patients and ids are compared within a dataset. Signals are compared across datasets, too: the
    same recording under another name is a leak that ids do not show. Recordings that are zero
    throughout are no evidence and are left out.
    """
    check_disjoint(*splits)
    for i, a in enumerate(splits):
        for b in splits[i + 1 :]:
            if a.dataset == b.dataset and (ids := sorted(set(a.record_id) & set(b.record_id))):
                raise UserError(
                    f"{a.dataset}: {len(ids)} record ids are in both {a.split} and {b.split} "
                    f"({_some(ids)}): prepare the dataset again"
                )
            if stems := segments_of_one(a, b):
                raise UserError(
                    f"segments of {len(stems)} recordings are in both {_name(a)} and {_name(b)} "
                    f"({_some(stems)}): split recordings, not their segments"
                )
            if pairs := same_signals(a, b):
                raise UserError(
                    f"{len(pairs)} recordings of {_name(a)} are also in {_name(b)} under other "
                    f"ids ({_some([f'{x} = {y}' for x, y in pairs])}): take them out of one"
                )


def segments_of_one(a: Records, b: Records) -> list[str]:
    """What ids of both splits begin with that number a recording's segments (JS00001_0, JS00001_1):
    a short list of numbers after many names, where a dataset that numbers its records has a long
    one after few."""
    if a.dataset != b.dataset:
        return []
    stems = [[m[1] for name in s.record_id if (m := _SEGMENT.fullmatch(str(name)))] for s in (a, b)]
    count = collections.Counter(stems[0]) + collections.Counter(stems[1])
    few = {stem for stem, n in count.items() if n <= _MOST_SEGMENTS}
    if len(few) < _LEAST_RECORDINGS or 2 * sum(count[s] for s in few) < len(a) + len(b):
        return []
    return sorted(few & set(stems[0]) & set(stems[1]))


def same_signals(a: Records, b: Records) -> list[tuple[str, str]]:
    """(record id in a, record id in b) of the recordings that are equal in every sample."""
    if a.rate != b.rate or a.ecg.shape[1:] != b.ecg.shape[1:]:
        return []
    where = {digest.tobytes(): row for row, digest in enumerate(b.signal_sha256)}
    found = [(row, where.get(digest.tobytes())) for row, digest in enumerate(a.signal_sha256)]
    return [
        (str(a.record_id[row]), str(b.record_id[other]))
        for row, other in found
        if other is not None and np.any(a.ecg[row : row + 1])
    ]


def _name(split: Records) -> str:
    return f"{split.dataset} {split.split}"


def _some(items: list[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (", ..." if len(items) > _SHOWN else "")
