"""Identification: is the record most like a patient's later one the patient's earlier one?

Of every patient with two records or more two are drawn. The earlier ones are the gallery, the later
ones the probes, and a probe's rank is the place of its own patient by the cosine of the encoder's
features (the released code compares scores of training classes). Two galleries: the test patients,
of whom the encoder has seen no record, and all patients of the dataset, whose figure is comparable
with published ones, but of an encoder that was trained on most of them.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ecg_jax.data.records import Records
from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures import bootstrap
from ecg_jax.evaluation.figures.results import MACRO, Row
from ecg_jax.evaluation.protocols.zero_shot import unit

TASK, PROTOCOL = "identification", "identify"
KS = (1, 5)
CROP = 5.0  # seconds; what a crop is compared with is a crop
# dataset, its records -> patients with two or more.
KNOWN = {("ptb_xl", 21_799): 2_111}


class Pairs(NamedTuple):
    """Rows int [P] of each patient's earlier and later record, and the patients' ids."""

    earlier: np.ndarray
    later: np.ndarray
    patient_id: np.ndarray


def pairs(record_id: npt.ArrayLike, patient_id: npt.ArrayLike, seed: int = 0) -> Pairs:
    """Two records of every patient with two or more, drawn by seed; of the two, the one whose id
    is the lower number is the earlier (so PTB-XL's are numbered).

    Raises:
      UserError: no patient has two records.
    """
    ids, rng = np.asarray(record_id), np.random.default_rng(seed)
    numbered = all(str(name).isdigit() for name in ids)
    time: list[Any] = [int(name) if numbered else str(name) for name in ids]
    of: dict[str, list[int]] = {}
    for row, patient in enumerate(np.asarray(patient_id)):
        of.setdefault(str(patient), []).append(row)
    drawn = []
    for patient in sorted(of):
        rows = sorted(of[patient], key=lambda row: time[row])
        if len(rows) > 1:
            a, b = sorted(rng.choice(len(rows), 2, replace=False))
            drawn.append((rows[a], rows[b], patient))
    if not drawn:
        raise UserError(
            "identification compares two records of a patient, and no patient has two: choose a "
            "dataset with patients, such as ptb_xl"
        )
    earlier, later, patients = zip(*drawn, strict=True)
    return Pairs(np.array(earlier), np.array(later), np.array(patients))


def galleries(splits: dict[str, Records]) -> dict[str, tuple[list[Records], np.ndarray]]:
    """ "test" and "all" -> the records, earlier ones before later ones, each in parts of one
    split, and the patients' ids.

    Raises:
      UserError: no patient has two records, or see `check_known`.
    """
    test, whole = splits["test"], list(splits.values())
    of_test = pairs(test.record_id, test.patient_id)
    check_unseen(splits["train"], of_test.patient_id, test.dataset)
    ids, patients = (
        np.concatenate([getattr(split, name) for split in whole])
        for name in ("record_id", "patient_id")
    )
    found = pairs(ids, patients)
    check_known(test.dataset, len(ids), len(found.patient_id))
    ends = np.cumsum([len(split) for split in whole])
    home = np.searchsorted(ends, found.earlier, side="right")
    order = np.argsort(home, kind="stable")
    parts = []
    for rows in (found.earlier[order], found.later[order]):
        for i, split in enumerate(whole):
            own = (rows >= ends[i] - len(split)) & (rows < ends[i])
            if own.any():
                parts.append(split.take(rows[own] - (ends[i] - len(split))))
    tested = [test.take(rows) for rows in (of_test.earlier, of_test.later)]
    return {"test": (tested, of_test.patient_id), "all": (parts, found.patient_id[order])}


def apart(earlier: Sequence[Records], later: Sequence[Records]) -> str:
    """The time between both records of a patient, in words; that it is not known, where it is
    not."""
    days = [
        [np.full(len(s), np.nan) if s.recorded is None else s.recorded for s in part]
        for part in (earlier, later)
    ]
    between = np.concatenate(days[1]) - np.concatenate(days[0])
    between = between[~np.isnan(between)]
    if not len(between):
        return "the time between both records is not known"
    low, middle, high = np.percentile(between, [25, 50, 75])
    return f"a median of {middle:,.0f} days apart (quartiles {low:,.0f} to {high:,.0f})"


def check_known(dataset: str, records: int, patients: int) -> None:
    """Raises a UserError where a dataset that is whole has not the patients that it has."""
    if (wanted := KNOWN.get((dataset, records), patients)) != patients:
        raise UserError(
            f"{dataset} of {records:,} records has {patients:,} patients with two or more, and "
            f"{wanted:,} are known: its patient ids are not the published ones"
        )


def check_unseen(train: Records, patient_id: np.ndarray, dataset: str) -> None:
    """Raises a UserError if a record of these patients, of this dataset, is among those that the
    encoder was trained on."""
    if train.dataset != dataset:
        return
    if seen := sorted(set(map(str, patient_id)) & set(map(str, train.patient_id))):
        raise UserError(
            f"identification: {len(seen)} of the test's patients have records in the training "
            f"({', '.join(seen[:3])}{', ...' if len(seen) > 3 else ''}): leave all of them out"
        )


def ranks(gallery: np.ndarray, probe: np.ndarray) -> np.ndarray:
    """int [P], from 1: the place of row p of the gallery float [P, D] for row p of the probes;
    equal similarities count against it."""
    a, b = unit(gallery, "a gallery record's"), unit(probe, "a probe's")
    cosine = (b @ a.T).astype(np.float32)
    return (cosine >= np.diagonal(cosine)[:, None]).sum(axis=1)


def crop(split: Records, seed: int = 0) -> Records:
    """The records, each cut to `CROP` seconds at a place that its id and the seed give.

    Raises:
      UserError: records that are shorter.
    """
    width = round(CROP * split.rate)
    if split.ecg.shape[1] < width:
        raise UserError(
            f"identification crops {CROP:g} s, and {split.dataset}'s records are read to "
            f"{split.ecg.shape[1] / split.rate:g} s: set --config.seconds to {CROP:g} or more"
        )
    ecg = np.empty((len(split), width, split.ecg.shape[2]), np.int16)
    for row, (name, length) in enumerate(zip(split.record_id, split.length, strict=True)):
        key = [seed, *str(name).encode()]
        start = np.random.default_rng(key).integers(0, max(int(length) - width, 0) + 1)
        ecg[row] = split.ecg[row : row + 1][0, start : start + width]
    return dataclasses.replace(split, ecg=ecg, length=np.minimum(split.length, width))


def rows(
    rank: np.ndarray,
    patient_id: np.ndarray,
    *,
    dataset: str,
    split: str,
    encoder: str,
    condition: str,
    draws: int,
    note: str = "",
) -> list[Row]:
    """Rank-1 and rank-5 accuracy with 95 % intervals over patients; chance is k / P."""
    P = len(rank)
    drawn = bootstrap.draws(patient_id, draws).astype(np.float64)
    table = []
    for k in KS:
        hit = rank <= k
        value, count = float(hit.mean()), int(hit.sum())
        of_draw = drawn @ hit / drawn.sum(axis=1)
        rests_on = np.array([P if min(count, P - count) > 1 else 1])
        low, high = bootstrap.interval(value, of_draw[:, None], rests_on)
        where: dict[str, Any] = dict(task=TASK, dataset=dataset, split=split, protocol=PROTOCOL)
        where |= dict(encoder=encoder, label=MACRO, metric=f"rank-{k}")
        figures = dict(value=value, ci_low=low, ci_high=high, n=P)
        extras = dict(positives=count, chance=min(k / P, 1.0), note=note, choice="")
        table.append(
            where | figures | extras | dict(rule="corrected", fraction=None, condition=condition)
        )
    return table


# condition -> what it makes of the records
CUTS: dict[str, Callable[[Records], Records]] = {
    "": lambda split: split,
    f"crops of {CROP:g} s": crop,
}
