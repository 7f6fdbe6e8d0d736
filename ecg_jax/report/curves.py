"""The numbers behind the figures: curves of one class, calibration, confusion."""

from typing import NamedTuple

import numpy as np


def roc(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(false, true) positive rate at every distinct threshold, from (0, 0) to (1, 1).

    Args:
      y: bool [N] with positives and negatives.
      score: float [N], finite.
    """
    hits, false = _counts(y, score)
    return np.r_[0.0, false / false[-1]], np.r_[0.0, hits / hits[-1]]


def precision_recall(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(recall, precision) at every distinct threshold, the highest first.

    Recall that a threshold adds is had at that threshold's precision, so the curve is a staircase:
    the area under it is the average precision. It starts at recall 0 with the first precision.

    Arguments as `roc`.
    """
    hits, false = _counts(y, score)
    precision = hits / (hits + false)
    return np.r_[0.0, hits / hits[-1]], np.r_[precision[0], precision]


def drawable(y: np.ndarray, score: np.ndarray) -> bool:
    """Whether a class has positives, negatives and scores."""
    return bool(y.any() and not y.all() and np.isfinite(score).all())


class Platt(NamedTuple):
    """Probability of a score s: sigmoid(slope s + offset)."""

    slope: float
    offset: float

    def __call__(self, score: np.ndarray) -> np.ndarray:
        return _sigmoid(self.slope * np.asarray(score, np.float64) + self.offset)


def platt(y: np.ndarray, score: np.ndarray, steps: int = 100) -> Platt:
    """Logistic regression of a label on its score, with Platt's targets (Platt 1999, section 2.2):
    (n+ + 1) / (n+ + 2) for positives and 1 / (n- + 2) for negatives, so that a class that scores
    tell apart without error still has a finite slope.

    Args:
      y: bool [N].
      score: float [N], finite.
    """
    score = np.asarray(score, np.float64)
    centre, scale = score.mean(), score.std() or 1.0
    x = np.stack([(score - centre) / scale, np.ones(len(score))], axis=1)
    positive = int(y.sum())
    target = np.where(y, (positive + 1) / (positive + 2), 1 / (len(y) - positive + 2))
    share = target.mean()
    weight = np.array([0.0, np.log(share / (1 - share))])
    loss = _log_loss(x @ weight, target)
    for _ in range(steps):
        p = _sigmoid(x @ weight)
        gradient = x.T @ (p - target)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        while _log_loss(x @ (weight - step), target) > loss + 1e-12 and np.abs(step).max() > 1e-9:
            step /= 2
        weight = weight - step
        loss = _log_loss(x @ weight, target)
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
    return Reliability(
        predicted, observed, low, high, count, brier, float(y.mean() * (1 - y.mean()))
    )


def confusion(y: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Counts int [K, K] of (true class, class with the highest score) over the records that have
    exactly one label; of equal scores the first class.

    Args:
      y: bool [N, K].
      score: float [N, K]; a column of NaN is a class that is never the highest.
    """
    y = np.asarray(y, bool)
    single = y.sum(axis=1) == 1
    K = y.shape[1]
    truth = y[single].argmax(axis=1)
    scores = np.asarray(score, np.float64)[single]
    predicted = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
    return np.bincount(truth * K + predicted, minlength=K * K).reshape(K, K)


def _counts(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives at or above every distinct score, the highest first."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits = np.cumsum(y[order])[ends]
    return hits, ends + 1 - hits


def _wilson(share: np.ndarray, n: np.ndarray, z: float = 1.959964) -> tuple[np.ndarray, np.ndarray]:
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return middle - half, middle + half


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))


def _log_loss(logit: np.ndarray, target: np.ndarray) -> float:
    return float(np.sum(np.logaddexp(0, logit) - target * logit))
