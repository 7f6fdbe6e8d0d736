"""Is one encoder better than another? A paired permutation test on the same patients.

If two encoders are as good as each other, it does not matter which of them scored which patient. So
their scores of all records of a patient are exchanged, for a random half of the patients, and the
difference of macro AUROC is taken anew; p says how often it is as large as the one that was found
(arXiv 2602.17531 asks for such tests; Holm 1979 corrects for several of them). Scores are compared
by their rank among the encoder's own, so that it does not matter what scale they are on.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ecg_jax.errors import UserError

PERMUTATIONS = 1000


class Difference(NamedTuple):
    """Macro AUROC of the first encoder less that of the second, over the classes that both score,
    and the two-sided p of it."""

    value: float
    p: float
    classes: int


def compare(
    y: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    patient_id: Sequence[str] | np.ndarray,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Difference:
    """Tests scores a [N, K] against b [N, K] of the same records with labels y bool [N, K].

    p = (1 + permutations with a difference as large) / (1 + permutations); NaN where no class has
    positives, negatives and both scores.

    Raises:
      UserError: arrays that do not fit.
    """
    y, patient_id = np.asarray(y, bool), np.asarray(patient_id)
    if not y.shape == np.shape(a) == np.shape(b) or patient_id.shape != (len(y),):
        raise UserError(
            f"labels {y.shape}, scores {np.shape(a)} and {np.shape(b)} and patients "
            f"{patient_id.shape} do not fit"
        )
    known = ~np.isnan(a).any(axis=0) & ~np.isnan(b).any(axis=0)
    kept = np.flatnonzero(known & y.any(axis=0) & ~y.all(axis=0))
    if not len(kept):
        return Difference(np.nan, np.nan, 0)
    _, patient = np.unique(patient_id, return_inverse=True)
    rng = np.random.default_rng(seed)
    exchanged = rng.integers(2, size=(patient.max() + 1, permutations), dtype=np.int16)
    exchanged[:, 0] = 0  # the first "permutation" is what was found
    swap = exchanged[patient]
    drawn = np.mean([_differences(y[:, k], a[:, k], b[:, k], swap) for k in kept], axis=0)
    value = float(drawn[0])
    as_large = int((np.abs(drawn[1:]) >= abs(value) - 1e-12).sum())
    return Difference(value, (1 + as_large) / permutations, len(kept))


def _differences(y: np.ndarray, a: np.ndarray, b: np.ndarray, swap: np.ndarray) -> np.ndarray:
    """AUROC of a less that of b [R], of one class, with the scores exchanged where swap [N, R] is
    one.

    Both encoders' scores are sorted together once; who holds which of them is a matter of counting.
    """
    from scipy.stats import rankdata

    score = np.concatenate([rankdata(a), rankdata(b)])
    order = np.argsort(score, kind="stable")
    held = np.concatenate([1 - swap, swap])[order]  # by the first encoder; else by the second
    label = np.concatenate([y, y])[order]
    negative = np.where(label[:, None], np.int16(0), held)
    below = np.concatenate([np.zeros_like(held[:1]), np.cumsum(negative, axis=0, dtype=np.int32)])
    every = np.concatenate([[0], np.cumsum(~label)])  # of both encoders
    positive = np.flatnonzero(label)
    start = np.searchsorted(score[order], score[order][positive], side="left")
    end = np.searchsorted(score[order], score[order][positive], side="right")
    own = (below[start] + below[end]) / 2  # ties count one half
    others = ((every[start] + every[end]) / 2)[:, None] - own
    mine = held[positive]
    return ((mine * own).sum(axis=0) - ((1 - mine) * others).sum(axis=0)) / (y.sum() * (~y).sum())


def holm(values: Sequence[float]) -> np.ndarray:
    """Holm's step-down correction of several p values [M], which keeps the chance of any false
    finding at its level (Holm 1979); NaN stay, and are not counted."""
    p = np.asarray(values, np.float64)
    corrected = np.full(len(p), np.nan)
    order = [i for i in np.argsort(p, kind="stable") if not np.isnan(p[i])]
    most = 0.0
    for rank, i in enumerate(order):
        most = max(most, min(1.0, (len(order) - rank) * p[i]))
        corrected[i] = most
    return corrected
