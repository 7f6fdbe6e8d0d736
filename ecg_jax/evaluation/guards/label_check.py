"""Label columns in the wrong place are found before a figure is made of them.

Public files of this field have such columns, and a perfect classifier then scores little. Three
guards: names (`check_names`), the hierarchy of classes where a dataset has one, which needs no
model (`check_hierarchy`), and scores: those fitted to one class that rank another class's records
better than its own (`check_columns`).
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ecg_jax.data import challenge
from ecg_jax.data.classes import FINDING_SUPERCLASS, SUBCLASS, SUPERCLASS, TASKS
from ecg_jax.data.records import Records
from ecg_jax.errors import UserError
from ecg_jax.evaluation import tasks

# A misplaced column costs .3 to .5 of AUROC where a class can be told at all; classes that resemble
# each other (an inferior and an inferolateral infarction) cost a few hundredths.
MIN_GAIN = 0.1
MIN_AUROC = 0.75  # of labels by another class's scores; below it, scores learnt too little to tell
MIN_POSITIVES = 10  # records, and as many negatives
MIN_PATIENTS = 5
_AGAIN = "prepare the dataset again"


def check_labels(train: Records, validation: Records, test: Records, task: str) -> None:
    """Names and hierarchy of a task's label columns in all three splits.

    Raises:
      UserError: the task is missing, names differ between splits, or columns contradict the
        statements that they are made of; the line names split and classes.
    """
    check_names(task, train, validation, test)
    for split in (train, validation, test):
        check_hierarchy(split, task)


def check_names(task: str, *splits: Records) -> None:
    """Raises a UserError unless the splits name the same columns in the same order, each once, and
    as the dataset (if it is one of this project's) does."""
    first = splits[0]
    for split in splits:
        tasks.check(split.dataset, split.classes, [task])
        names, where = split.classes[task], f"{split.dataset} {split.split}"
        if split.labels[task].shape != (len(split), len(names)):
            raise UserError(
                f"{where}: label columns of {task} of shape {split.labels[task].shape} for "
                f"{len(split)} records and {len(names)} names: {_AGAIN}"
            )
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(f"{where}: {task} names {', '.join(doubled)} twice: {_AGAIN}")
        known = TASKS.get(split.dataset, {}).get(task)
        if known and (odd := sorted(set(names) ^ set(known.classes))):
            raise UserError(f"{where}: {task} has other classes than known: {', '.join(odd)}")
        if split.dataset == first.dataset and names != first.classes[task]:
            differ = [a for a, b in zip(names, first.classes[task], strict=False) if a != b]
            raise UserError(
                f"{where}: {task} has other columns than {first.split}, or in another order "
                f"(the first that differs: {(differ or names[-1:])[0]}): {_AGAIN}"
            )


def check_hierarchy(split: Records, task: str) -> None:
    """Raises a UserError if a task's columns contradict those of a task that it follows from.

    In PTB-XL a superclass or subclass is present where one of its diagnostic statements is, and
    form, rhythm and diagnostic are columns of `all`; in simulated records superclasses follow from
    the findings. Other datasets have no such relation.
    """
    for made, source, members in _relations(split.dataset):
        if task in (made, source) and made in split.labels and source in split.labels:
            _check_relation(split, made, source, members)


def check_columns(
    y: np.ndarray,
    score: np.ndarray,
    patient_id: np.ndarray,
    classes: Sequence[str],
    *,
    where: str,
    draws: int = 200,
    seed: int = 0,
) -> None:
    """Raises a UserError if labels fit scores of other classes better than those of their own.

    For scores that learnt the classes from another split: if two columns are swapped in one of the
    splits, scores of each rank the records of the other. The assignment of scores to labels with
    the highest sum of AUROC is searched. A cycle of it is reported if each of its classes reaches
    `MIN_AUROC`, they gain `MIN_GAIN` of AUROC on average, and more than 0 in every one of `draws`
    bootstrap draws of patients. Classes with few records or patients are left out.

    Args:
      y: bool [N, K].
      score: float [N, K], e.g. the linear probe's; a column of NaN is left out.
      patient_id: [N].
      where: what is checked, e.g. "ptb_xl test, super".
    """
    y, score, patient_id = np.asarray(y, bool), np.asarray(score), np.asarray(patient_id)
    kept = [k for k in range(y.shape[1]) if _enough(y[:, k], score[:, k], patient_id)]
    for cycle in _cycles(_cross_auroc(y[:, kept], score[:, kept])):
        columns = [kept[i] for i in cycle]
        own, next_one = _aurocs(y[:, columns], score[:, columns])
        gain = float(np.mean(next_one - own))
        if next_one.min() < MIN_AUROC or gain < MIN_GAIN:
            continue
        if _least_gain(y[:, columns], score[:, columns], patient_id, draws, seed) > 0:
            moves = ", ".join(
                f"{classes[k]} by the scores of {classes[other]} (AUROC {b:.2f}, not {a:.2f})"
                for k, other, a, b in zip(columns, np.roll(columns, -1), own, next_one, strict=True)
            )
            raise UserError(
                f"{where}: label columns look misplaced: records are ranked better as {moves}: "
                "compare the order of classes in the splits' sources"
            )


def _relations(dataset: str) -> Iterator[tuple[str, str, dict[str, str]]]:
    """(task, task that it follows from, {class of the latter: class of the former})."""
    if dataset == "ptb_xl":
        for task in ("diagnostic", "form", "rhythm"):
            yield task, "all", {code: code for code in TASKS[dataset][task].classes}
        yield "super", "diagnostic", SUPERCLASS
        yield "sub", "diagnostic", SUBCLASS
        said = challenge.FROM_SCP.items()
        yield "challenge", "all", {code: label for label, codes in said for code in codes}
    if dataset == "simulated":
        yield "super", "findings", FINDING_SUPERCLASS


def _check_relation(split: Records, made: str, source: str, members: dict[str, str]) -> None:
    found, names = split.labels[made], split.classes[made]
    implied = np.zeros_like(found)
    for code, group in members.items():
        column = split.labels[source][:, split.classes[source].index(code)]
        implied[:, names.index(group)] |= column
    wrong = (found != implied).sum(axis=0)
    if not wrong.any():
        return
    parts = []
    for k in np.flatnonzero(wrong):
        twins = [names[j] for j in range(len(names)) if np.array_equal(found[:, k], implied[:, j])]
        holds = f" and hold what {source} says of {twins[0]}" if len(twins) == 1 else ""
        parts.append(f"{names[k]} ({wrong[k]} records{holds})")
    shown = ", ".join(parts[:5]) + (", ..." if len(parts) > 5 else "")
    raise UserError(
        f"{split.dataset} {split.split}: label columns of {made} contradict those of {source}: "
        f"{shown}: a column is misplaced: {_AGAIN}"
    )


def _enough(y: np.ndarray, score: np.ndarray, patient_id: np.ndarray) -> bool:
    return bool(np.isfinite(score).all()) and all(
        own.sum() >= MIN_POSITIVES and len(np.unique(patient_id[own])) >= MIN_PATIENTS
        for own in (y, ~y)
    )


def _cross_auroc(y: np.ndarray, score: np.ndarray) -> np.ndarray:
    """[K, K]: AUROC of the scores of class j (column) for the labels of class k (row); ties count
    one half (Mann-Whitney)."""
    rank_sum = y.T.astype(np.float64) @ ranks(score)
    positives = y.sum(axis=0)[:, None].astype(np.float64)
    pairs = np.maximum(positives * (len(y) - positives), 1)
    return (rank_sum - positives * (positives + 1) / 2) / pairs


def ranks(score: np.ndarray) -> np.ndarray:
    """float64 [N, K]: the rank of each score in its column, from 1, the mean rank of those that are
    equal; NaN in a column with a NaN."""
    ranked = np.empty(score.shape)
    for k, column in enumerate(score.T):
        _, place, counts = np.unique(column, return_inverse=True, return_counts=True)
        ranked[:, k] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return np.where(np.isnan(score).any(axis=0), np.nan, ranked)


def _cycles(auroc: np.ndarray) -> list[list[int]]:
    """The best assignment's cycles of two or more: labels of each fit the scores of the next."""
    from scipy.optimize import linear_sum_assignment  # slow to import

    _, to = linear_sum_assignment(auroc, maximize=True)
    cycles, seen = [], set()
    for start in range(len(to)):
        cycle, k = [], start
        while k not in seen:
            seen.add(k)
            cycle.append(k)
            k = int(to[k])
        if len(cycle) > 1:
            cycles.append(cycle)
    return cycles


def _aurocs(y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[K] each: AUROC of every label by its own scores, and by those of the next class."""
    auroc = _cross_auroc(y, score)
    own = np.arange(len(auroc))
    return auroc[own, own], auroc[own, np.roll(own, -1)]


def _least_gain(
    y: np.ndarray, score: np.ndarray, patient_id: np.ndarray, draws: int, seed: int
) -> float:
    _, patient = np.unique(patient_id, return_inverse=True)
    rows_of = np.split(np.argsort(patient, kind="stable"), np.cumsum(np.bincount(patient))[:-1])
    rng = np.random.default_rng(seed)
    gains = []
    for _ in range(draws):
        drawn = rng.integers(len(rows_of), size=len(rows_of))
        rows = np.concatenate([rows_of[i] for i in drawn])
        if (y[rows].any(axis=0) & ~y[rows].all(axis=0)).all():
            own, next_one = _aurocs(y[rows], score[rows])
            gains.append(float(np.mean(next_one - own)))
    return min(gains, default=0.0)
