"""Label fractions: which training records a few-label experiment may use.

Whole patients are drawn, and the draw is an order: 1 % are its first patients, 5 % those and the
next ones, so curves over fractions are nested. The order depends on patients, labels and seed, not
on the order of the records or on the encoder. It begins with a patient for every class, taken from
the rarest class to the commonest where none before has it, and goes on at random. So a small
fraction holds every class, and rare ones more often than the split does.
"""

import math
from typing import NamedTuple

import numpy as np

from ecg_jax.errors import UserError


class Subset(NamedTuple):
    """Training records to use.

    Attributes:
      rows: int [n], ascending.
      patients: how many patients they are of.
      fraction: the real share of the split's patients.
      note: for the tables: how many there are, and whether that is more than was asked for.
    """

    rows: np.ndarray
    patients: int
    fraction: float
    note: str


def draw(y: np.ndarray, patient_id: np.ndarray, fraction: float, seed: int = 0) -> Subset:
    """The records of `fraction` of the patients, or of as many as it takes to have every class.

    Args:
      y: bool [N, K], labels of the training split; a class without positives is not looked for.
      patient_id: [N].
      fraction: of the patients, above 0 and at most 1, rounded to whole patients.
      seed: of NumPy's PCG64.

    Raises:
      UserError: another fraction, arrays that do not fit, a record without patient.
    """
    if not (math.isfinite(fraction) and 0 < fraction <= 1):
        raise UserError(f"a label fraction must be above 0 and at most 1, not {fraction:g}")
    order, needed, patient = _order(*_checked(y, patient_id), seed)
    asked = max(1, round(fraction * len(order)))
    count = max(asked, needed)
    rows = np.flatnonzero(np.isin(patient, order[:count]))
    note = f"{len(rows):,} training records of {count:,} patients"
    if count > asked:
        note += f": {100 * fraction:g} % of the patients, {asked:,}, do not hold every class"
    return Subset(rows, count, count / len(order), note)


def _order(y: np.ndarray, patient_id: np.ndarray, seed: int) -> tuple[np.ndarray, int, np.ndarray]:
    """Patients [P] in the order of the draw, how many of them hold every class, and each record's
    patient [N]."""
    names, patient = np.unique(patient_id, return_inverse=True)
    has = np.zeros((len(names), y.shape[1]), bool)
    np.logical_or.at(has, patient, y)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    first = []
    for k in np.argsort(has.sum(axis=0), kind="stable"):
        if has[:, k].any() and not has[first, k].any():
            first.append(shuffled[has[shuffled, k].argmax()])
    rest = shuffled[~np.isin(shuffled, first)]
    return np.append(np.array(first, shuffled.dtype), rest), len(first), patient


def _checked(y: np.ndarray, patient_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, patient_id = np.asarray(y), np.asarray(patient_id)
    if y.ndim != 2 or not len(y) or patient_id.shape != (len(y),):
        raise UserError(f"labels {y.shape} and patient_id {patient_id.shape} do not fit")
    if y.dtype != bool and not np.isin(y, (0, 1)).all():
        raise UserError("labels must be true or false (1 or 0)")
    if patient_id.dtype.kind not in "US" or (np.char.str_len(patient_id) == 0).any():
        raise UserError(
            "every record needs its patient_id, a string, so that patients can be drawn"
        )
    return y.astype(bool), patient_id
