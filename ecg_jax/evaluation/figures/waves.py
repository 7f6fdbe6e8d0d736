"""How well waves are delineated: boundaries matched within a tolerance, and sample by sample.

A boundary is between two samples that both are labelled. What is found outside a lead's labelled
part is neither right nor wrong.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ecg_jax.evaluation.figures import bootstrap, paired

NAMES = ("none", "P", "QRS", "T")  # the values of `Records.segments`
ENDS = ("onset", "offset")
# ms. EC57's convention, which is loose; and what two readers differ by (Martinez et al. 2004, IEEE
# Trans Biomed Eng 51:570-581, as openecg uses it).
LOOSE = {(kind, end): 150.0 for kind in (1, 2, 3) for end in ENDS}
STRICT = {
    **{(1, end): 50.0 for end in ENDS},
    **{(2, end): 40.0 for end in ENDS},
    **{(3, "onset"): 50.0, (3, "offset"): 100.0},
}
TOLERANCES: Mapping[str, Mapping[tuple[int, str], float]] = {"150": LOOSE, "strict": STRICT}

# What may follow what: after P comes QRS or nothing, after T nothing or, at a high rate, P; after
# QRS T or nothing. Each change costs PENALTY nats, so that a wave is not found in a few samples.
ALLOWED = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1]], bool)
PENALTY = 2.0
SHORTEST = {1: 0.030, 2: 0.030, 3: 0.060}  # s; what is shorter is no wave


def decode(log_p: np.ndarray, rate: int) -> np.ndarray:
    """The likeliest sequences under `ALLOWED`, without waves below `SHORTEST` (Viterbi).

    Args:
      log_p: float [M, T, 4], of sequences by themselves.

    Returns:
      uint8 [M, T].
    """
    M, T, K = log_p.shape
    change = np.where(ALLOWED, -PENALTY * (1 - np.eye(K)), -np.inf)
    best, came = log_p[:, 0], np.zeros((T, M, K), np.uint8)
    for t in range(1, T):
        through = best[:, :, None] + change  # [M, from, to]
        came[t] = through.argmax(axis=1)
        best = np.take_along_axis(through, came[t][:, None], axis=1)[:, 0] + log_p[:, t]
    path = np.zeros((M, T), np.uint8)
    path[:, -1] = best.argmax(axis=1)
    for t in range(T - 1, 0, -1):
        path[:, t - 1] = np.take_along_axis(came[t], path[:, t, None], axis=1)[:, 0]
    for sequence in path:
        for kind, seconds in SHORTEST.items():
            for first, last in runs(sequence == kind):
                if last - first + 1 < seconds * rate:
                    sequence[first : last + 1] = 0
    return path


def runs(on: np.ndarray) -> np.ndarray:
    """First and last index, int [n, 2], of every stretch of bool [T] that is true."""
    steps = np.diff(np.concatenate([[0], on.astype(np.int8), [0]]))
    return np.stack([np.flatnonzero(steps == 1), np.flatnonzero(steps == -1) - 1], axis=1)


def counts(found: np.ndarray, true: np.ndarray, known: np.ndarray, rate: int) -> dict[str, Any]:
    """What the figures of one record are made of.

    Args:
      found, true: uint8 [T, C]; known: bool [T, C].

    Returns:
      `confusion` int [4, 4] (true, found) of the labelled samples; for each of `TOLERANCES`, int
      [3, 2, 3] for P, QRS, T, for onset and offset: matched, missed, extra; and `errors`, a list of
      (kind, end index, ms) of what is matched within 150 ms.
    """
    pairs = 4 * true[known].astype(int) + found[known]
    out: dict[str, Any] = {"confusion": np.bincount(pairs, minlength=16).reshape(4, 4)}
    out |= {name: np.zeros((3, 2, 3), int) for name in TOLERANCES}
    out["errors"] = []
    for lead in np.flatnonzero(known.any(axis=0)):
        labelled = known[:, lead]
        for kind in (1, 2, 3):
            ours, theirs = (runs(x[:, lead] == kind) for x in (found, true))
            for e in range(2):
                reference = [i for i in theirs[:, e] if _bounded(labelled, i, e)]
                for name, tolerances in TOLERANCES.items():
                    most = tolerances[kind, ENDS[e]] * rate / 1000
                    matched, extra = match(reference, ours[:, e], most)
                    extra = [i for i in extra if labelled[i]]
                    n = len(matched)
                    out[name][kind - 1, e] += (n, len(reference) - n, len(extra))
                    if name == "150":
                        ms = [(kind, e, 1000 * (b - a) / rate) for a, b in matched]
                        out["errors"] += ms
    return out


def _bounded(labelled: np.ndarray, i: int, e: int) -> bool:
    """Whether the sample beyond a wave's end at `i` is labelled, too: else no end is marked."""
    beyond = i - 1 if e == 0 else i + 1
    return bool(0 <= beyond < len(labelled) and labelled[i] and labelled[beyond])


def match(reference: Any, found: Any, most: float) -> tuple[list[tuple[int, int]], list[int]]:
    """Pairs (reference, found) of places at most `most` apart, each place in one, the nearest
    first; and what is found and in none."""
    reference, found = np.asarray(reference, int), np.asarray(found, int)
    if not len(reference) or not len(found):
        return [], found.tolist()
    apart = np.abs(reference[:, None] - found)
    pairs, used_a, used_b = [], set(), set()
    for flat in np.argsort(apart, axis=None, kind="stable"):
        a, b = divmod(int(flat), len(found))
        if apart[a, b] > most:
            break
        if a not in used_a and b not in used_b:
            pairs.append((int(reference[a]), int(found[b])))
            used_a.add(a)
            used_b.add(b)
    return sorted(pairs), [int(x) for b, x in enumerate(found) if b not in used_b]


def figures(each: list[dict[str, Any]], weight: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """(label, metric) -> float [R] under weights [R, N] of the records; NaN where nothing is.

    `macro` of boundaries is the mean F1 over the six; `dice` (sample-level F1) that over the waves;
    `miou` that over the waves and none.
    """
    out: dict[tuple[str, str], np.ndarray] = {}
    for name in TOLERANCES:
        total = np.tensordot(weight, np.stack([one[name] for one in each]), axes=1)
        matched, missed, extra = np.moveaxis(total, -1, 0)  # [R, 3, 2]
        f1 = _ratio(2 * matched, 2 * matched + missed + extra)
        each_f1 = f1.reshape(len(f1), -1)
        there = np.isfinite(each_f1)
        out["macro", f"f1_{name}"] = _ratio(np.where(there, each_f1, 0).sum(1), there.sum(1))
        for metric, value in (
            (f"f1_{name}", f1),
            (f"recall_{name}", _ratio(matched, matched + missed)),
            (f"precision_{name}", _ratio(matched, matched + extra)),
        ):
            for k, e in np.ndindex(3, 2):
                out[f"{NAMES[k + 1]} {ENDS[e]}", metric] = value[:, k, e]
    confusion = np.tensordot(weight, np.stack([one["confusion"] for one in each]), axes=1)
    hit = np.einsum("rkk->rk", confusion)
    both = confusion.sum(axis=1) + confusion.sum(axis=2)
    dice, iou = _ratio(2 * hit, both), _ratio(hit, both - hit)
    out["macro", "dice"] = dice[:, 1:].mean(axis=1)
    out["macro", "miou"] = iou.mean(axis=1)
    for k in (1, 2, 3):
        out[NAMES[k], "dice"], out[NAMES[k], "iou"] = dice[:, k], iou[:, k]
    return out


def sample_f1(each: list[dict[str, Any]]) -> np.ndarray:
    """float [N], of each record: the mean of sample-level F1 over the waves that it has, NaN where
    nothing is labelled."""
    confusion = np.stack([one["confusion"] for one in each])
    both = confusion.sum(axis=1) + confusion.sum(axis=2)
    f1 = _ratio(2 * np.einsum("nkk->nk", confusion), both)[:, 1:]
    there = np.isfinite(f1)
    return _ratio(np.where(there, f1, 0).sum(axis=1), there.sum(axis=1))


def rows(each: list[dict[str, Any]], patient_id: np.ndarray, draws: int, **where: Any) -> list:
    """Rows of `results.json`, with a patient bootstrap; errors in ms as mean and deviation."""
    N = len(each)
    values = figures(each, np.ones((1, N)))
    drawn = figures(each, bootstrap.draws(patient_id, draws))
    table = []
    for (label, metric), value in values.items():
        of_draws = drawn[label, metric][np.isfinite(drawn[label, metric])]
        low, high = np.quantile(of_draws, (0.025, 0.975)) if len(of_draws) else (np.nan, np.nan)
        table.append(_row(label, metric, float(value[0]), float(low), float(high), N, where))
    errors = [error for one in each for error in one["errors"]]
    for k, e in np.ndindex(3, 2):
        ms = np.array([x for kind, end, x in errors if (kind, end) == (k + 1, e)])
        label = f"{NAMES[k + 1]} {ENDS[e]}"
        for metric, value in (
            (("error_ms", ms.mean()), ("error_sd_ms", ms.std())) if len(ms) else ()
        ):
            table.append(_row(label, metric, float(value), np.nan, np.nan, N, where))
    return table


def compare(
    a: list[dict[str, Any]],
    b: list[dict[str, Any]],
    patient_id: np.ndarray,
    permutations: int = paired.PERMUTATIONS,
    seed: int = 0,
) -> dict[tuple[str, str], tuple[float, float]]:
    """(label, metric) of the macro figures -> the first's less the second's on the same records,
    and the two-sided p of it, where both are defined: found waves of a patient are exchanged, for a
    random half of the patients (see `paired`)."""
    _, patient = np.unique(patient_id, return_inverse=True)
    swap = np.random.default_rng(seed).integers(2, size=(permutations, patient.max() + 1))
    swap[0] = 0  # the first "permutation" is what was found
    swap = swap[:, patient]
    weights = np.concatenate([1 - swap, swap], axis=1)
    ours, theirs = (figures([*a, *b], w) for w in (weights, 1 - weights))
    out = {}
    for key, value in ours.items():
        drawn = value - theirs[key]
        if key[0] == "macro" and np.isfinite(drawn[0]):
            as_large = int((np.abs(drawn[1:]) >= abs(drawn[0]) - 1e-12).sum())
            out[key] = float(drawn[0]), (1 + as_large) / permutations
    return out


def _row(label: str, metric: str, value: float, low: float, high: float, n: int, where: Any):
    figures = dict(label=label, metric=metric, value=value, ci_low=low, ci_high=high, n=n)
    return {**where, **figures, "positives": n, "chance": None, "note": ""}


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 0)
