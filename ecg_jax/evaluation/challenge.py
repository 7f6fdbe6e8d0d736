"""The score of the PhysioNet/Computing in Cardiology Challenge 2021, per recording.

Of a recording with the labels L and the outputs O, each pair of one of L and one of O earns its
weight divided by |L or O|; the score is what the outputs earn between that of outputs which say
sinus rhythm of everybody (0) and that of the labels themselves (1). It may be negative.

The weights are those of the Challenge (challenge_weights.csv, BSD-2-Clause, see
challenge_weights.LICENSE.txt); their rows are the true classes.
"""

import csv
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecg_jax.data.challenge import CLASSES, SINUS, SNOMED
from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures.predictions import Predictions
from ecg_jax.evaluation.figures.results import MACRO, Row

WEIGHTS = Path(__file__).with_name("challenge_weights.csv")
STEPS = np.linspace(0, 1, 41)  # quantiles of a class's scores that are tried
TASK, METRIC = "challenge", "challenge score"


@functools.cache
def weights() -> np.ndarray:
    """float64 [26, 26], in the order of `CLASSES`."""
    with WEIGHTS.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    codes = ["|".join(map(str, SNOMED[name])) for name in CLASSES]
    assert header[1:] == codes == [row[0] for row in rows]
    return np.array([[float(x) for x in row[1:]] for row in rows])


def earned(y: np.ndarray, output: np.ndarray, classes: Sequence[str] = CLASSES) -> np.ndarray:
    """float64 [N, 3]: what each recording's outputs earn, its labels as outputs, and sinus rhythm.

    Args:
      y, output: bool [N, K], labels and outputs.
      classes: [K] names of `CLASSES`, sinus rhythm among them; others count as neither.

    Raises:
      UserError: another class, or none for sinus rhythm.
    """
    y, output = np.asarray(y, bool), np.asarray(output, bool)
    if unknown := [name for name in classes if name not in CLASSES]:
        raise UserError(f"{unknown[0]} is none of the Challenge's classes: {', '.join(CLASSES)}")
    if SINUS not in classes:
        raise UserError(f"the Challenge's score needs the class {SINUS}")
    at = [CLASSES.index(name) for name in classes]
    weight = weights()[np.ix_(at, at)]
    sinus = np.zeros_like(y)
    sinus[:, list(classes).index(SINUS)] = True
    found = []
    for said in (output, y, sinus):
        size = np.maximum((y | said).sum(axis=1), 1)
        found.append(np.einsum("nj,jk,nk->n", y, weight, said, optimize=True) / size)
    return np.stack(found, axis=1)


def score(raw: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """The score of all recordings, or of each bootstrap draw, of `earned` [N, 3].

    Args:
      weight: [R, N], how often a recording counts in each draw.

    Returns:
      float64 [R], or a scalar; 0 where labels earn no more than sinus rhythm does.
    """
    total = raw.sum(axis=0) if weight is None else weight.astype(np.float64) @ raw
    observed, correct, inactive = np.moveaxis(total, -1, 0)
    span = correct - inactive
    return np.where(span != 0, (observed - inactive) / np.where(span != 0, span, 1), 0.0)


def thresholds(y: np.ndarray, scores: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """float64 [K]: where each class is cut so that validation scores best, found one class after
    the other, twice, from the cut that is right most often; NaN for a class without a score.

    Args:
      y: bool [N, K]; scores: float [N, K], both of the validation split.
    """
    K = y.shape[1]
    tried = [np.unique(np.quantile(s, STEPS)) if np.isfinite(s).all() else None for s in scores.T]
    cut = np.full(K, np.inf)
    for k, values in enumerate(tried):
        if values is not None:
            right = [((scores[:, k] >= v) == y[:, k]).mean() for v in values]
            cut[k] = values[int(np.argmax(right))]
    for _ in range(2):
        for k, values in enumerate(tried):
            if values is None:
                continue
            output, best = scores >= cut, []
            for value in values:
                output[:, k] = scores[:, k] >= value
                best.append(float(score(earned(y, output, classes))))
            cut[k] = values[int(np.argmax(best))]
    return np.where([values is None for values in tried], np.nan, cut)


def row(
    p: Predictions,
    drawn: np.ndarray,
    *,
    classes: Sequence[str],
    **where: Any,
) -> Row:
    """The row of a prediction's score, its interval the middle 95 % of the draws uint [R, N]; 0 is
    what sinus rhythm for everybody reaches."""
    found = earned(p.y, p.score >= p.threshold, classes)
    low, high = np.percentile(score(found, drawn), [2.5, 97.5]).tolist()
    figures = dict(value=float(score(found)), ci_low=low, ci_high=high, n=len(p.y))
    missing = [name for name in CLASSES if name not in classes]
    note = f"without {', '.join(missing)}, which the dataset has no labels of" if missing else ""
    extras = dict(positives=len(classes), chance=0.0, note=note)
    return {**where, "label": MACRO, "metric": METRIC, **figures, **extras}
