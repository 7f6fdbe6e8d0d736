"""The numbers behind the figures: curves of one class, confusion."""

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
