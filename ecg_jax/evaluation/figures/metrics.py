"""Metrics of multi-label classification, one figure per class, in float64 NumPy.

Letters: `N` records, `K` classes, `R` weightings of the records (bootstrap draws). Every metric
takes `weight`: None, [N] for one weighting, or [R, N] for many at once, which sorts each class only
once. NaN always means "undefined here": see each metric. A column of scores that is NaN throughout
is a class without a score, and its figures are NaN; a stray NaN or infinity is an error.
"""

import numpy as np

from ecg_jax.errors import UserError

# Weights are worked on in blocks of about this many float64 (2 MB: they stay in cache).
_BLOCK = 1 << 18


def auroc(y: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Area under the ROC curve; tied scores count one half.

    Args:
      y: bool [N, K], the labels.
      score: float [N, K], higher for the more likely.
      weight: non-negative [N] or [R, N]; None weighs all records alike.

    Returns:
      float64 [K] or [R, K]; NaN for a class whose positives or negatives have no weight.

    Raises:
      UserError: shapes that do not fit, labels other than 0 and 1, scores or weights not finite.
    """
    return ranking(y, score, weight)[0]


def auprc(y: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Average precision, sum over thresholds of (recall step) x precision, without interpolation.

    Arguments, result and errors as `auroc`; NaN for a class whose positives have no weight, and 1
    where its negatives have none.
    """
    return ranking(y, score, weight)[1]


def ranking(
    y: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(`auroc`, `auprc`) from one sort of each class."""
    y, score = _checked_scores(y, score)
    weight_RxN = _checked_weight(weight, len(y))
    areas = np.full((2, len(weight_RxN), y.shape[1]), np.nan)
    weight_NxR = np.ascontiguousarray(weight_RxN.T)
    for k in np.flatnonzero(y.any(axis=0) & ~np.isnan(score).any(axis=0)):
        order = np.argsort(-score[:, k], kind="stable")
        ends = _tie_ends(score[order, k])
        for block in _blocks(len(weight_RxN), len(y)):
            areas[:, block, k] = _curve_areas(weight_NxR[order, block], y[order, k], ends)
    auroc_RxK, auprc_RxK = areas
    many = weight is not None and np.ndim(weight) == 2
    return (auroc_RxK, auprc_RxK) if many else (auroc_RxK[0], auprc_RxK[0])


def f1(y: np.ndarray, predicted: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """F1 = 2 TP / (2 TP + FP + FN) of bool [N, K] predictions.

    Result and errors as `auroc`; NaN where a class is neither present nor predicted.
    """
    y, predicted = _checked_predictions(y, predicted)
    hits = _weighted_sum(y & predicted, weight)
    return _divide(2 * hits, _weighted_sum(y, weight) + _weighted_sum(predicted, weight))


def precision(y: np.ndarray, predicted: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """TP / (TP + FP) of bool [N, K] predictions.

    Result and errors as `auroc`; NaN where a class is not predicted.
    """
    y, predicted = _checked_predictions(y, predicted)
    return _divide(_weighted_sum(y & predicted, weight), _weighted_sum(predicted, weight))


def recall(y: np.ndarray, predicted: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """TP / (TP + FN) of bool [N, K] predictions.

    Result and errors as `auroc`; NaN where a class is not present.
    """
    y, predicted = _checked_predictions(y, predicted)
    return _divide(_weighted_sum(y & predicted, weight), _weighted_sum(y, weight))


def accuracy(y: np.ndarray, predicted: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Share of the weight on which bool [N, K] predictions are right, for each class on its own.

    Result and errors as `auroc`; NaN without any weight.
    """
    y, predicted = _checked_predictions(y, predicted)
    total = _weighted_sum(np.ones_like(y), weight)
    return _divide(_weighted_sum(y == predicted, weight), total)


def best_f1_threshold(y: np.ndarray, score: np.ndarray) -> np.ndarray:
    """float64 [K]: `score >= threshold` has the highest F1. To be chosen on validation data.

    The threshold lies midway between the lowest score predicted positive and the next one below, or
    on the lowest score of all. Among equal F1 the highest threshold, which predicts the fewest
    positives, is taken. A class without positives gets NaN: no threshold can be chosen.

    Raises:
      UserError: as `auroc`.
    """
    y, score = _checked_scores(y, score)
    threshold = np.full(y.shape[1], np.nan)
    for k in np.flatnonzero(y.any(axis=0) & ~np.isnan(score).any(axis=0)):
        order = np.argsort(-score[:, k], kind="stable")
        descending = score[order, k]
        ends = _tie_ends(descending)
        hits = np.cumsum(y[order, k])[ends]
        best = int(np.argmax(hits / (hits[-1] + ends + 1)))  # F1 / 2: ends + 1 are predicted
        lowest_in = descending[ends[best]]
        highest_out = descending[min(ends[best] + 1, len(y) - 1)]
        middle = highest_out + (lowest_in - highest_out) / 2
        threshold[k] = middle if middle > highest_out else lowest_in
    return threshold


def check_finite(score: np.ndarray) -> None:
    """Raises a UserError for scores [N, K] that are not finite, columns of NaN aside."""
    stray = ~np.isfinite(score) & ~np.isnan(score).all(axis=0)
    if stray.any():
        n, k = np.argwhere(stray)[0]
        raise UserError(
            f"{stray.sum()} scores are not finite (the first: record {n}, class {k}); "
            "check the encoder's output"
        )


def macro(values: np.ndarray) -> np.ndarray:
    """Mean of [..., K] over the classes that are defined (not NaN); NaN where none is."""
    values = np.asarray(values, np.float64)
    defined = ~np.isnan(values)
    return _divide(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def _curve_areas(
    weight_NxR: np.ndarray, y: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both areas [R] of one class; records by falling score, tie groups ending at `ends`."""
    weight_NxR = weight_NxR.astype(np.float64)
    predicted = np.cumsum(weight_NxR, axis=0)[ends]
    # Only groups that hold a positive add area: for a rare class that is a few rows.
    positive = np.flatnonzero(y)
    group = np.searchsorted(ends, positive)
    first = np.flatnonzero(np.diff(group, prepend=-1))
    group = group[first]
    hit_step = np.add.reduceat(weight_NxR[positive], first, axis=0)
    hits = np.cumsum(hit_step, axis=0)
    false = predicted[group] - hits
    false_before = np.where(group[:, None] > 0, predicted[group - 1], 0.0) - (hits - hit_step)
    negatives = predicted[-1] - hits[-1]
    below = negatives - (false + false_before) / 2
    precision = np.divide(hits, predicted[group], out=np.zeros_like(hits), where=hits > 0)
    return (
        _divide((hit_step * below).sum(axis=0), hits[-1] * negatives),
        _divide((hit_step * precision).sum(axis=0), hits[-1]),
    )


def _tie_ends(ordered: np.ndarray) -> np.ndarray:
    """Index of the last record of every run of equal scores."""
    return np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)


def _weighted_sum(chosen_NxK: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """Weight of the chosen records: [K], or [R, K] for weights [R, N]."""
    weight_RxN = _checked_weight(weight, len(chosen_NxK))
    chosen = chosen_NxK.astype(np.float64)
    sums = np.empty((len(weight_RxN), chosen.shape[1]))
    for block in _blocks(*weight_RxN.shape):
        sums[block] = weight_RxN[block].astype(np.float64) @ chosen
    return sums if weight is not None and np.ndim(weight) == 2 else sums[0]


def _blocks(rows: int, columns: int) -> list[slice]:
    step = max(1, _BLOCK // max(1, columns))
    return [slice(start, start + step) for start in range(0, rows, step)]


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient in float64, NaN where the denominator is zero."""
    numerator = np.asarray(numerator, np.float64)
    undefined = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=np.asarray(denominator) > 0)


def _checked_weight(weight: np.ndarray | None, n: int) -> np.ndarray:
    """Weights as [R, N]."""
    if weight is None:
        return np.ones((1, n))
    weight = np.asarray(weight)
    if weight.ndim not in (1, 2) or weight.shape[-1] != n:
        raise UserError(f"weights of shape {weight.shape} do not fit {n} records")
    if weight.dtype.kind not in "bu" and not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise UserError("weights must be finite and not negative")
    return np.atleast_2d(weight)


def _checked_labels(name: str, y: np.ndarray) -> np.ndarray:
    y = np.asarray(y)
    if y.ndim != 2:
        raise UserError(f"{name} must be [records, classes], not of shape {y.shape}")
    if y.dtype != bool and not np.isin(y, (0, 1)).all():
        raise UserError(f"{name} must be true or false (1 or 0)")
    return y.astype(bool)


def _checked_predictions(y: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, predicted = _checked_labels("labels", y), _checked_labels("predictions", predicted)
    if y.shape != predicted.shape:
        raise UserError(f"predictions {predicted.shape} do not fit the labels {y.shape}")
    return y, predicted


def _checked_scores(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y, score = _checked_labels("labels", y), np.asarray(score, np.float64)
    if y.shape != score.shape:
        raise UserError(f"scores {score.shape} do not fit the labels {y.shape}")
    check_finite(score)
    return y, score
