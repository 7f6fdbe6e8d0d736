"""Do the probabilities hold? Platt scaling, reliability, and the figures of both."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ecg_jax.evaluation.figures import metrics
from ecg_jax.evaluation.figures.results import MACRO, Row

METRICS = ("brier", "ece")


def rows(
    y: np.ndarray,
    score: np.ndarray,
    y_val: np.ndarray,
    score_val: np.ndarray,
    *,
    classes: Sequence[str],
    **where: Any,
) -> list[Row]:
    """Brier score and expected calibration error of every class and of their mean, of
    probabilities that Platt scaling of each class on validation makes of the scores.

    `chance` is what the prevalence as everyone's probability reaches: p (1 - p), and 0. A class
    without positives and negatives in both splits is left out. There are no intervals.

    Args:
      y: bool [N, K].
      score: float [N, K].
      y_val: bool [M, K], of the validation split.
      score_val: float [M, K].
      classes: [K] names.
      where: the row's other columns.
    """
    values = {metric: np.full(len(classes), np.nan) for metric in METRICS}
    chance = {metric: np.full(len(classes), np.nan) for metric in METRICS}
    for k in range(len(classes)):
        if drawable(y[:, k], score[:, k]) and drawable(y_val[:, k], score_val[:, k]):
            probability = platt(y_val[:, k], score_val[:, k])(score[:, k])
            found = reliability(y[:, k], probability)
            values["brier"][k], values["ece"][k] = found.brier, found.error
            chance["brier"][k], chance["ece"][k] = found.brier_prevalence, 0.0
    left_out = [name for name, v in zip(classes, values["brier"], strict=True) if np.isnan(v)]
    note = "probabilities by Platt scaling on validation"
    if left_out:
        note += f"; {len(left_out)} of {len(classes)} classes left out: {', '.join(left_out)}"
    table = []
    for metric in METRICS:
        count = len(classes) - len(left_out)
        macro = [float(metrics.macro(v[metric])) for v in (values, chance)]
        of = [(MACRO, *macro, count, note)]
        positives = y.sum(axis=0).tolist()
        of += zip(classes, values[metric].tolist(), chance[metric].tolist(), positives, strict=True)
        for label, value, level, positive, *notes in of:
            figures = {"value": value, "ci_low": np.nan, "ci_high": np.nan, "n": len(y)}
            extras = {"positives": positive, "chance": level, "note": "".join(notes)}
            table.append({**where, "label": label, "metric": metric, **figures, **extras})
    return table


def drawable(y: np.ndarray, score: np.ndarray) -> bool:
    """Whether a class has positives, negatives and scores."""
    return bool(y.any() and not y.all() and np.isfinite(score).all())


class Platt(NamedTuple):
    """Probability of a score s: sigmoid(slope s + offset)."""

    slope: float
    offset: float

    def __call__(self, score: np.ndarray) -> np.ndarray:
        return _sigmoid(self.slope * np.asarray(score, np.float64) + self.offset)


def platt(
    y: np.ndarray, score: np.ndarray, often: np.ndarray | None = None, steps: int = 100
) -> Platt:
    """Logistic regression of a label on its score, with Platt's targets (Platt 1999, section 2.2):
    (n+ + 1) / (n+ + 2) for positives and 1 / (n- + 2) for negatives, so that a class that scores
    tell apart without error still has a finite slope.

    Args:
      y: bool [N].
      score: float [N], finite.
      often: float [N], how many records each stands for; one if not given.
    """
    score = np.asarray(score, np.float64)
    often = np.ones(len(score)) if often is None else np.asarray(often, np.float64)
    centre, scale = score.mean(), score.std() or 1.0
    x = np.stack([(score - centre) / scale, np.ones(len(score))], axis=1)
    positive, negative = float(often[y].sum()), float(often[~y].sum())
    target = np.where(y, (positive + 1) / (positive + 2), 1 / (negative + 2))
    share = np.average(target, weights=often)
    weight = np.array([0.0, np.log(share / (1 - share))])
    loss = _log_loss(x @ weight, target, often)
    for _ in range(steps):
        p = _sigmoid(x @ weight)
        gradient = x.T @ (often * (p - target))
        hessian = (x * (often * p * (1 - p))[:, None]).T @ x + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        while np.abs(step).max() > 1e-9 and _log_loss(x @ (weight - step), target, often) > (
            loss + 1e-12
        ):
            step /= 2
        weight = weight - step
        loss = _log_loss(x @ weight, target, often)
        if np.abs(step).max() < 1e-9:
            break
    return Platt(float(weight[0] / scale), float(weight[1] - weight[0] * centre / scale))


class Reliability(NamedTuple):
    """Predicted and observed frequency of the bins that hold records, all [M]."""

    predicted: np.ndarray  # mean probability
    observed: np.ndarray  # share of positives
    low: np.ndarray  # 95 % interval of `observed` (Wilson 1927)
    high: np.ndarray
    count: np.ndarray  # int [bins], empty bins too
    error: float  # expected calibration error: mean distance of both, by the bins' records
    brier: float  # mean squared error of the probabilities
    brier_prevalence: float  # of the prevalence as everyone's probability


def reliability(y: np.ndarray, probability: np.ndarray, bins: int = 10) -> Reliability:
    """Compares probabilities with frequencies in bins of equal width.

    Args:
      y: bool [N].
      probability: float [N] from 0 to 1.
      bins: how many.
    """
    y, probability = np.asarray(y, np.float64), np.asarray(probability, np.float64)
    place = np.minimum((probability * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = count > 0
    n = count[filled]
    predicted = np.bincount(place, probability, bins)[filled] / n
    observed = np.bincount(place, y, bins)[filled] / n
    low, high = _wilson(observed, n)
    brier = float(np.mean((probability - y) ** 2))
    error = float(np.sum(n * np.abs(predicted - observed)) / max(len(y), 1))
    prevalence = float(y.mean() * (1 - y.mean()))
    return Reliability(predicted, observed, low, high, count, error, brier, prevalence)


def _wilson(share: np.ndarray, n: np.ndarray, z: float = 1.959964) -> tuple[np.ndarray, np.ndarray]:
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return middle - half, middle + half


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))


def _log_loss(logit: np.ndarray, target: np.ndarray, often: np.ndarray) -> float:
    return float(np.sum(often * (np.logaddexp(0, logit) - target * logit)))
