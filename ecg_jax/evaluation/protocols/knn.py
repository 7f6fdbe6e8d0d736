"""k nearest neighbours on frozen features: what they hold without any training.

Features are standardised by the training split. A record's neighbours are the training records
whose features have the highest cosine with its own, and its score for a class is the share of its
k neighbours that have it, each weighing as much as its cosine (Wu et al. 2018, section 3.4, without
their temperature). k serves all classes and is chosen on validation.
"""

from typing import NamedTuple

import numpy as np

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures import metrics
from ecg_jax.evaluation.protocols import features

KS = (1, 5, 10, 20, 50, 100, 200)

# What a neighbour weighs at least: if all k lie at right angles or beyond, they weigh alike.
_LEAST = 1e-6
_ROWS = 256  # records at a time


class Neighbours(NamedTuple):
    """The training split, ready to be asked; labels that are constant in it are not `fitted`."""

    mean: np.ndarray  # float32 [D]
    scale: np.ndarray  # float32 [D]; infinite for a constant feature, which is thereby dropped
    direction: (
        np.ndarray
    )  # float32 [N, D], the training records' standardised features, of length 1
    y: np.ndarray  # bool [N, K]
    fitted: np.ndarray  # bool [K]
    k: int  # the chosen one
    path: tuple[tuple[int, float], ...]  # (k, macro AUROC on validation)


def fit(
    x_train: np.ndarray,
    y_train: np.ndarray,
    x_val: np.ndarray,
    y_val: np.ndarray,
    ks: tuple[int, ...] = KS,
) -> Neighbours:
    """Keeps the k with the highest macro AUROC on validation; of equally good ones the largest.

    Args:
      x_train: float [N, D], features of the training split.
      y_train: bool [N, K], its labels.
      x_val: float [M, D].
      y_val: bool [M, K].
      ks: numbers of neighbours; those above N are left out.

    Raises:
      UserError: shapes that do not fit, features not finite, features that are all constant,
        nothing to choose by, no k between 1 and N.
    """
    x_train, y_train = features.checked_split("training", x_train, y_train)
    x_val, y_val = features.checked_split("validation", x_val, y_val)
    fitted = features.check_fit(x_train, y_train, x_val, y_val)
    possible = sorted({k for k in ks if k <= len(x_train)})
    if not possible or possible[0] < 1:
        raise UserError(f"k must be between 1 and the {len(x_train)} training records, not {ks}")
    mean, scale = features.statistics(x_train)
    if np.isinf(scale).all():
        raise UserError("the training split's features are all constant")
    direction = _direction(x_train, mean, scale)
    model = Neighbours(mean, scale, direction, y_train, fitted, possible[-1], ())
    path = [
        (k, float(metrics.macro(metrics.auroc(y_val, score))))
        for k, score in zip(possible, _scores(model, x_val, possible), strict=True)
    ]
    k, _ = max(path, key=lambda step: (step[1], step[0]))
    return model._replace(k=k, path=tuple(path))


def predict(model: Neighbours, x: np.ndarray) -> np.ndarray:
    """Scores float32 [N, K] between 0 and 1; NaN for labels that are constant in training.

    Raises:
      UserError: features of another width, or not finite.
    """
    x = features.checked("the", x)
    if x.shape[1] != len(model.mean):
        raise UserError(f"the neighbours have {len(model.mean)} features, not {x.shape[1]}")
    return _scores(model, x, [model.k])[0]


def _scores(model: Neighbours, x: np.ndarray, ks: list[int]) -> np.ndarray:
    """float32 [len(ks), N, K]; of equally near neighbours the training split's first are taken."""
    scores = np.empty((len(ks), len(x), model.y.shape[1]), np.float32)
    direction = _direction(x, model.mean, model.scale)
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        cosine = direction[rows] @ model.direction.T
        nearest = np.argsort(-cosine, axis=1, kind="stable")[:, : max(ks)]
        weight = np.maximum(np.take_along_axis(cosine, nearest, axis=1), _LEAST)[:, None]
        y = model.y[nearest].astype(np.float32)
        for score, k in zip(scores, ks, strict=True):
            hits = (weight[:, :, :k] @ y[:, :k])[:, 0]
            score[rows] = hits / weight[:, :, :k].sum(axis=2)
    scores[:, :, ~model.fitted] = np.nan
    return scores


def _direction(x: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Standardised features, of length one; a record at the mean of all stays zero."""
    return features.l2_normalize((x - mean) / scale)
