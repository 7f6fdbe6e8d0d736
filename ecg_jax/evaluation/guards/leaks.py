"""A test record that training has seen, by its patient, its id or its signal, fails the run."""

import numpy as np

from ecg_jax.data.records import Records, check_disjoint
from ecg_jax.errors import UserError

_SHOWN = 3


def check_leaks(*splits: Records) -> None:
    """Raises a UserError if two splits share a patient, a record id or a recording.

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
            if pairs := same_signals(a, b):
                raise UserError(
                    f"{len(pairs)} recordings of {_name(a)} are also in {_name(b)} under other "
                    f"ids ({_some([f'{x} = {y}' for x, y in pairs])}): take them out of one"
                )


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
