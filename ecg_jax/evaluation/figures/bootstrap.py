"""Bootstrap over patients: how far a figure would move with other patients.

Records of one patient resemble each other, so patients are drawn, not records: intervals over
records would be too narrow. The percentiles of the draws would be too narrow as well where a class
has few patients: simulated AUROC of 0.95 with 10 positive patients lay in its 95 % percentile
interval 80 % of the time, in the interval below 94 %.
"""

from collections.abc import Sequence

import numpy as np

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures import metrics

# A variance of figures near 1 that is no more than this comes from float64 rounding.
_ROUNDING = 1e-24


def draws(patient_id: Sequence[str] | np.ndarray, n: int = 1000, seed: int = 0) -> np.ndarray:
    """Draws as many patients as there are, with replacement, `n` times.

    A patient's weights depend on the set of patients and the seed, not on the order of the records,
    so the same split gives the same draws to every encoder.

    Args:
      patient_id: [N], the patient of every record.
      n: number of draws.
      seed: of NumPy's PCG64.

    Returns:
      uint16 [n, N]: how often each record counts in each draw; all records of a patient alike.

    Raises:
      UserError: a record without a patient's name, or no draw asked for.
    """
    patient_id = np.asarray(patient_id)
    if n < 1:
        raise UserError(f"the bootstrap needs at least one draw, not {n}")
    if patient_id.ndim != 1 or patient_id.dtype.kind not in "US":
        raise UserError("patient_id must be one string per record")
    nameless = int((np.char.str_len(patient_id) == 0).sum())
    if nameless:
        raise UserError(f"{nameless} records have no patient_id, so patients cannot be drawn")
    patients, patient = np.unique(patient_id, return_inverse=True)
    if not len(patients):
        return np.zeros((n, 0), np.uint16)
    rng = np.random.default_rng(seed)
    uniform = np.full(len(patients), 1 / len(patients))
    times = rng.multinomial(len(patients), uniform, size=n).astype(np.uint16)
    return times[:, patient]


def interval(
    value: float, drawn: np.ndarray, patients: np.ndarray, level: float = 0.95
) -> tuple[float, float]:
    """Interval of a figure between 0 and 1: of one class (K = 1), or the macro mean of K classes.

    logit(value) -+ t s, where s is the standard deviation of the draws' macro figures on the logit
    scale. The bootstrap variance of a mean over m patients is (m - 1) / m of what it should be, and
    is itself uncertain: s is corrected for the first, and t has the degrees of freedom that Welch
    and Satterthwaite give for the second (m - 1 when K = 1).

    Args:
      value: the figure on the split itself.
      drawn: [R, K], each class's figure in each draw; NaN where it is not defined there.
      patients: [K], the patients that a class's figure rests on: for AUROC, the fewer of those with
        a positive and those with a negative record.

    Returns:
      (low, high); NaN where the draws do not say: value 0 or 1, all draws alike, or no class with
      two patients. A macro interval lacks the variation of classes that rest on a single patient.
    """
    from scipy.special import expit, logit, stdtrit  # slow to import

    spread = _variance(metrics.macro(drawn)[:, None])[0]
    variance, patients = _variance(drawn), np.asarray(patients)
    usable = (variance > _ROUNDING) & (patients > 1)
    if not (usable.any() and spread > _ROUNDING and 0 < value < 1):
        return float("nan"), float("nan")
    variance, others = variance[usable], patients[usable] - 1
    corrected = variance * (others + 1) / others
    freedom = corrected.sum() ** 2 / (corrected**2 / others).sum()
    deviation = np.sqrt(spread * corrected.sum() / variance.sum())
    reach = stdtrit(freedom, (1 + level) / 2) * deviation / (value * (1 - value))
    return float(expit(logit(value) - reach)), float(expit(logit(value) + reach))


def _variance(drawn: np.ndarray) -> np.ndarray:
    """Variance [K] over the draws in which a figure is defined; NaN where there is none."""
    mean = metrics.macro(drawn.T)
    return metrics.macro(((drawn - mean) ** 2).T)
