"""The papers' rules: records with one label only, judged as ETP and METS judged them.

ETP (tables 2 and 3) gives AUROC, accuracy and F1 for each class against the rest. Its pairs of
accuracy and F1 fit only if a class's threshold is the one with the best F1 on the test split
itself, so that is the rule here of zero-shot; its other figures (table 1) do not tell, and have
thresholds of the validation split. METS (tables 1 to 3) gives accuracy, precision, recall and F1 of
the class with the highest score, on sets of 1,000 records. The corrected figures beside these are
those of `results.rows`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures import bootstrap, metrics, results
from ecg_jax.evaluation.figures.results import MACRO, Row

ETP_METRICS = ("auroc", "accuracy", "f1")
METS_METRICS = ("accuracy", "precision", "recall", "f1")
METS_RECORDS = 1000
SINGLE = "single-label records"

_EXTRAS = {"rule": "paper", "fraction": None, "condition": ""}


class Sample(NamedTuple):
    """Rows int [n], ascending, of a split's records; `note` says how they were chosen."""

    rows: np.ndarray
    note: str


def only_one(y: np.ndarray) -> np.ndarray:
    """Rows int [n] of labels bool [N, K] that have exactly one."""
    return np.flatnonzero(_checked_labels(y).sum(axis=1) == 1)


def mets_set(
    y: np.ndarray,
    record_id: Sequence[str] | np.ndarray,
    size: int = METS_RECORDS,
    seed: int = 0,
    what: str = SINGLE,
) -> Sample:
    """METS's test set (section 4.1): `size` single-label records, or all if there are fewer.

    The draw depends on the ids of the single-label records and the seed, not on their order.

    Raises:
      UserError: no single-label record, ids that do not fit or are not unique.
    """
    single, record_id = only_one(y), np.asarray(record_id)
    if record_id.shape != (len(y),) or len(np.unique(record_id)) < len(y):
        raise UserError(f"{len(y)} records need as many different record_ids")
    if not len(single):
        raise UserError("no record has exactly one label, so there is no single-label test set")
    by_id = single[np.argsort(record_id[single])]
    chosen = np.random.default_rng(seed).permutation(len(by_id))[:size]
    few = f", fewer than METS's {size:,}" if len(single) < size else f" of {len(single):,}"
    return Sample(np.sort(by_id[chosen]), f"{len(chosen):,} {what}{few}")


def etp_rows(
    y: np.ndarray,
    score: np.ndarray,
    threshold: np.ndarray | None,
    patient_id: Sequence[str] | np.ndarray,
    *,
    classes: Sequence[str],
    draws: int = 1000,
    what: str = SINGLE,
    **where: Any,
) -> list[Row]:
    """ETP's figures of the single-label records: per class, and their macro means.

    Args:
      y: bool [N, K]; records without, or with more than one, label are left out.
      score: float [N, K]; a column of NaN is a class without a score.
      threshold: float [K]; None for those with the best F1 on these records.
      patient_id: [N].
      classes: [K] names.
      draws: number of bootstrap draws, at the threshold chosen once.
      what: the records are, in a note.
      where: task, dataset, split, protocol, encoder.

    Raises:
      UserError: as `results.rows`, or no single-label record.
    """
    rows = only_one(y)
    if len(rows) == 0:
        raise UserError("no record has exactly one label: ETP's figures cannot be had")
    y, score = np.asarray(y)[rows], np.asarray(score)[rows]
    patient = np.asarray(patient_id)[rows]
    note = f"{len(rows):,} {what}"
    if threshold is None:
        threshold = metrics.best_f1_threshold(y, score)
        note += ", thresholds with the best F1 on these same records"
    drawn = bootstrap.draws(patient, draws)
    table = results.rows(y, score, threshold, patient, classes=classes, draws=drawn, **where)
    return [
        row | {"note": ". ".join(filter(None, (note, row["note"])))} | _EXTRAS
        for row in table
        if row["metric"] in ETP_METRICS
    ]


def predict(score: np.ndarray) -> np.ndarray:
    """int [N]: the class with the highest score, of equal ones the first.

    A column of NaN is a class without a score, and is never predicted.

    Raises:
      UserError: no class with a score, a stray score that is not finite.
    """
    score = np.asarray(score, np.float64)
    if score.ndim != 2 or not score.shape[1] or (len(score) and np.isnan(score).all()):
        raise UserError(f"no class has a score (scores are {score.shape}): none can be predicted")
    metrics.check_finite(score)
    return np.where(np.isnan(score), -np.inf, score).argmax(axis=1)


def mets_rows(
    y: np.ndarray,
    score: np.ndarray,
    patient_id: Sequence[str] | np.ndarray,
    *,
    classes: Sequence[str],
    draws: int = 1000,
    records: str = "",
    **where: Any,
) -> list[Row]:
    """METS's figures: accuracy, and precision, recall and F1 per class and macro.

    As in scikit-learn, the macro mean is over the classes that are present or predicted, and a
    quotient of 0 by 0 counts as 0. Each bootstrap draw is treated so, too.

    `chance` is the better of two blind answers, and the macro rows' note has both: any class with
    the same probability (expected), and always the most frequent class.

    Args:
      y: bool [N, K], one label each (see `mets_set`).
      score: float [N, K]; the highest is the prediction.
      patient_id: [N].
      classes: [K] names.
      draws: number of bootstrap draws.
      records: which they are, as `mets_set` says it; for the note.
      where: task, dataset, split, protocol, encoder.

    Raises:
      UserError: a record with no or several labels, arrays that do not fit.
    """
    y, predicted = _checked_single(y, predict(score))
    patient = np.asarray(patient_id)
    if patient.shape != (len(y),) or len(classes) != y.shape[1]:
        raise UserError(
            f"labels {y.shape} have {patient.shape} patients and {len(classes)} class names"
        )
    chosen = np.eye(y.shape[1], dtype=bool)[predicted]
    values, drawn = _figures(y, chosen), _figures(y, chosen, bootstrap.draws(patient, draws))
    rests_on = _patients(y, chosen, patient)
    blind = _blind(y)
    known = (y | chosen).sum(axis=0) > 0

    def row(label: str, metric: str, columns: slice, positives: int, note: str) -> Row:
        value = float(metrics.macro(values[metric][columns]))
        ends = bootstrap.interval(value, drawn[metric][:, columns], rests_on[metric][columns])
        chances = {name: float(metrics.macro(c[metric][columns])) for name, c in blind.items()}
        if label == MACRO:
            note = "; ".join([note, *(f"{name} {c:.3f}" for name, c in chances.items())])
        figures = {"value": value, "ci_low": ends[0], "ci_high": ends[1], "n": len(y)}
        extras = {
            "positives": positives,
            "chance": float(np.nanmax(list(chances.values()))),
            "note": note,
        }
        return {**where, "label": label, "metric": metric, **figures, **extras, **_EXTRAS}

    note = f"class with the highest score, {records or f'{len(y):,} {SINGLE}'}"
    if not known.all():
        names = [name for name, there in zip(classes, known, strict=True) if not there]
        note += f"; neither present nor predicted: {', '.join(names)}"
    table = [row(MACRO, metric, slice(None), int(known.sum()), note) for metric in METS_METRICS]
    for k, name in enumerate(classes):
        own = "" if known[k] else "neither present nor predicted"
        positives = int(y[:, k].sum())
        table += [row(name, m, slice(k, k + 1), positives, own) for m in METS_METRICS[1:]]
    return table


def _figures(
    y: np.ndarray, chosen: np.ndarray, weight: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Accuracy [1], and the others [K], or [R, 1] and [R, K]; NaN for a class neither present nor
    predicted, which is where F1 is not defined."""
    right = (y & chosen).sum(axis=1, keepdims=True) > 0
    f1 = metrics.f1(y, chosen, weight)
    figures = {"accuracy": metrics.accuracy(right, np.ones_like(right), weight), "f1": f1}
    for metric in (metrics.precision, metrics.recall):
        value = np.nan_to_num(metric(y, chosen, weight), nan=0.0)
        figures[metric.__name__] = np.where(np.isnan(f1), np.nan, value)
    return figures


def _patients(y: np.ndarray, chosen: np.ndarray, patient: np.ndarray) -> dict[str, np.ndarray]:
    """How many patients each figure rests on, as `bootstrap.interval` asks."""
    has, given = (
        np.array([len(np.unique(patient[own])) for own in which.T]) for which in (y, chosen)
    )
    everyone = len(np.unique(patient))
    either = np.where(has > 1, everyone, has)  # as in `results`
    return {"accuracy": np.array([everyone]), "precision": given, "recall": has, "f1": either}


def _blind(y: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Figures of answers that do not look at the recording, of classes with prevalence p."""
    p, K = y.mean(axis=0), y.shape[1]
    present, commonest = p > 0, np.arange(K) == p.argmax()
    uniform = {
        "accuracy": np.array([1 / K]),
        "precision": p,
        "recall": present / K,
        "f1": 2 * p / (K * p + 1),
    }
    frequent = {
        "accuracy": np.array([p.max()]),
        "precision": np.where(present, p * commonest, np.nan),
        "recall": np.where(present, 1.0 * commonest, np.nan),
        "f1": np.where(present, 2 * p / (1 + p) * commonest, np.nan),
    }
    return {"uniform guess": uniform, "most frequent class": frequent}


def _checked_labels(y: np.ndarray) -> np.ndarray:
    y = np.asarray(y)
    if y.ndim != 2 or (y.dtype != bool and not np.isin(y, (0, 1)).all()):
        raise UserError(
            f"labels must be true or false (1 or 0) for [records, classes], not {y.shape}"
        )
    return y.astype(bool)


def _checked_single(y: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels bool [N, K] with one each, N of at least 1, and predicted classes int [N]."""
    y, predicted = _checked_labels(y), np.asarray(predicted)
    several = int((y.sum(axis=1) != 1).sum())
    if several or not len(y):
        raise UserError(f"{several} of {len(y)} records do not have exactly one label")
    if predicted.shape != (len(y),) or predicted.dtype.kind not in "iu":
        raise UserError(f"predictions must be one class number for each of {len(y)} records")
    if predicted.min() < 0 or predicted.max() >= y.shape[1]:
        raise UserError(f"a predicted class is not one of the {y.shape[1]}")
    return y, predicted
