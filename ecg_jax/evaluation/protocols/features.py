"""Frozen features as the probe and the nearest neighbours take them."""

from typing import Any

import numpy as np

from ecg_jax.errors import NoFigureError, UserError


def checked(whose: str, x: np.ndarray) -> np.ndarray:
    """Features as float32 [N, D].

    Raises:
      UserError: another shape, or features that are not finite.
    """
    x = np.asarray(x, np.float32)
    if x.ndim != 2:
        raise UserError(f"{whose} features must be [records, features], not of shape {x.shape}")
    bad = int((~np.isfinite(x)).any(axis=1).sum())
    if bad:
        raise UserError(f"{whose} features are not finite in {bad} of {len(x)} records")
    return x


def checked_split(split: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features float32 [N, D] and labels bool [N, K] of a split.

    Raises:
      UserError: shapes that do not fit, no record, features not finite, labels not 0 or 1.
    """
    x, y = checked(f"{split} split's", x), np.asarray(y)
    if y.ndim != 2 or len(x) != len(y) or not len(x):
        raise UserError(f"{split} split: features {x.shape} and labels {y.shape} do not fit")
    if y.dtype != bool and not np.isin(y, (0, 1)).all():
        raise UserError(f"{split} split: labels must be true or false (1 or 0)")
    return x, y.astype(bool)


def check_fit(
    x_train: np.ndarray, y_train: np.ndarray, x_val: np.ndarray, y_val: np.ndarray
) -> np.ndarray:
    """bool [K]: labels with positives and negatives in training.

    Raises:
      UserError: other features or labels in validation.
      NoFigureError: nothing to fit and to choose by.
    """
    if x_train.shape[1] != x_val.shape[1] or y_train.shape[1] != y_val.shape[1]:
        raise UserError("training and validation differ in their features or labels")
    fitted = mixed(y_train)
    if not (fitted & mixed(y_val)).any():
        raise NoFigureError("no label has positives and negatives in both training and validation")
    return fitted


def mixed(y: np.ndarray) -> np.ndarray:
    """bool [K]: labels [N, K] with positives and negatives."""
    return np.asarray((y.sum(axis=0) > 0) & (y.sum(axis=0) < len(y)))


def statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, float32 [D] each; the deviation of what varies less than
    float32 resolves is infinite, so that the feature is dropped."""
    mean, std = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    constant = std <= 1e-6 * np.abs(x).max(axis=0)
    return mean.astype(np.float32), np.where(constant, np.inf, std).astype(np.float32)


def l2_normalize(x: np.ndarray) -> np.ndarray:
    """Features [N, D], each record's divided by their length; those of length zero stay zero."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.maximum(length, np.finfo(np.float32).tiny)


def pooled(encoded: Any, options: Any) -> np.ndarray:
    """What the linear probe is given of records.

    Args:
      encoded: float32 [N, D] features, the map's mean over time, and other `pools`: its deviation
        and maximum, and, if the encoder has stages, those three of earlier ones.
      options: config.evaluate. `pooling` "mean" is the features alone, divided by their length with
        `l2_normalize`; "all" is all side by side, each of length one.

    Returns:
      float32 [N, D], or [N, 3 D + ...] (2,688 of ResNet-18).
    """
    if options.pooling == "all":
        return np.hstack([l2_normalize(part) for part in (encoded.features, *encoded.pools)])
    return l2_normalize(encoded.features) if options.l2_normalize else encoded.features


def pooling_note(options: Any) -> str:
    """How `pooled` made its features."""
    if options.pooling == "all":
        return (
            "mean, deviation and maximum over time of the last three stages, each of length one, "
        )
    return "L2-normalised features, " if options.l2_normalize else ""
