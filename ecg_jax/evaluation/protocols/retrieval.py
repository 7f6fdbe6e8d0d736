"""Retrieval in the joint space: the report that belongs to an ECG, and the ECG to a report.

Records may share a report word for word, so any record with the query's text is a hit.

ecg_to_report: every record asks the split's distinct reports. Copies of a report have one embedding
and thus no order among themselves, so they are one candidate; were they many, a common report would
fill all ten places at once.
report_to_ecg: every record's report asks all records, and a record with the same text is a hit.

Records without a report neither ask nor answer. Equal similarities count against the query.
"""

from typing import Any, NamedTuple

import numpy as np

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures import bootstrap
from ecg_jax.evaluation.figures.results import Row
from ecg_jax.evaluation.protocols.zero_shot import unit

KS = (1, 5, 10)
METRICS = (*(f"recall@{k}" for k in KS), "median_rank")

_ROWS = 512  # queries at a time


class Ranks(NamedTuple):
    """Of Q queries: the place of the first hit, that in the best order which is the same for all
    queries, and the number of candidates."""

    rank: np.ndarray  # int [Q], from 1
    blind: np.ndarray  # int [Q], from 1
    candidates: int


def ecg_to_report(ecg: np.ndarray, text: np.ndarray, text_id: np.ndarray) -> Ranks:
    """Ranks of each record's own report among the distinct ones.

    Args:
      ecg: float [Q, E], embeddings of the records that have a report.
      text: float [M, E], embeddings of distinct reports; those that no record has are left out.
      text_id: int [Q], each record's row of `text`.

    Raises:
      UserError: arrays that do not fit, embeddings without direction, no record.
    """
    ecg, text, own = _checked(ecg, text, text_id)
    rank = np.empty(len(ecg), np.int64)
    for rows in _chunks(len(ecg)):
        cosine = _cosine(ecg[rows], text)
        first = np.take_along_axis(cosine, own[rows, None], axis=1)
        rank[rows] = (cosine >= first).sum(axis=1)
    return Ranks(rank, _blind(own), len(text))


def report_to_ecg(ecg: np.ndarray, text: np.ndarray, text_id: np.ndarray) -> Ranks:
    """Ranks of the first record with the query's report; arguments and errors as above."""
    ecg, text, own = _checked(ecg, text, text_id)
    rank = np.empty(len(text), np.int64)
    for rows in _chunks(len(text)):
        cosine = _cosine(text[rows], ecg)
        hit = own == np.arange(len(text))[rows, None]
        first = np.where(hit, cosine, -np.inf).max(axis=1, keepdims=True)
        rank[rows] = 1 + ((cosine >= first) & ~hit).sum(axis=1)
    return Ranks(rank[own], _blind(own), len(ecg))


def rows(
    ecg: np.ndarray,
    text: np.ndarray,
    text_id: np.ndarray,
    patient_id: np.ndarray,
    *,
    dataset: str,
    split: str,
    encoder: str,
    draws: int = 1000,
) -> list[Row]:
    """Recall and median rank in both directions, with 95 % intervals over patients.

    Patients are drawn among the queries while the candidates stay: a record drawn twice would
    otherwise be its own duplicate. The median's interval is the draws' percentiles; it has none
    where there are fewer than two patients.

    `chance` is the most that an order of the candidates reaches which does not look at the query:
    the split's commonest reports first, or a record of each. `positives` is the number of queries
    with a hit (for the median, of queries).

    Args:
      ecg: float [N, E], embeddings of a split's records.
      text: float [M, E], embeddings of distinct reports.
      text_id: int [N], each record's row of `text`, -1 without a report.
      patient_id: [N].
      draws: number of bootstrap draws.

    Raises:
      UserError: arrays that do not fit, embeddings without direction, no record with a report.
    """
    text_id, patient_id = np.asarray(text_id), np.asarray(patient_id)
    if text_id.shape != (len(ecg),) or patient_id.shape != (len(ecg),):
        raise UserError(
            f"{len(ecg)} records have text_id {text_id.shape} and patient_id {patient_id.shape}"
        )
    there = text_id >= 0
    asked, patient = (np.asarray(ecg)[there], text, text_id[there]), patient_id[there]
    drawn = bootstrap.draws(patient, draws)
    where = dict(task="reports", dataset=dataset, split=split, protocol="retrieval")
    extras = dict(rule="corrected", fraction=None, condition="")
    table = []
    for search in (ecg_to_report, report_to_ecg):
        found = search(*asked)
        kind = "distinct reports" if search is ecg_to_report else "records"
        notes = [f"{found.candidates:,} {kind} to choose from"]
        if not there.all():
            notes.append(f"{(~there).sum()} records without report left out")
        for metric in METRICS:
            row = {**where, "encoder": encoder, "label": search.__name__, "metric": metric}
            row |= _figures(found, metric, patient, drawn)
            alone = (
                ["no interval: all hits, or all misses, are of one patient"]
                if row.pop("alone")
                else []
            )
            table.append(row | dict(note="; ".join(notes + alone)) | extras)
    return table


def _figures(found: Ranks, metric: str, patient: np.ndarray, drawn: np.ndarray) -> dict[str, Any]:
    """Value, interval, number of queries, positives and chance of one metric; `alone` where only
    one patient has, or only one lacks, a hit."""
    patients = len(np.unique(patient))
    if metric == "median_rank":
        value, positives = float(weighted_median(found.rank)), len(found.rank)
        ends = float("nan"), float("nan")
        few = patients
        if patients > 1:
            ends = tuple(np.percentile(weighted_median(found.rank, drawn), [2.5, 97.5]).tolist())
        chance = float(np.median(found.blind))
    else:
        k = int(metric.removeprefix("recall@"))
        hit = found.rank <= k
        value, positives = float(hit.mean()), int(hit.sum())
        few = min(len(np.unique(patient[hit])), len(np.unique(patient[~hit])))
        of_draw = (drawn @ hit.astype(np.float64)) / drawn.sum(axis=1)
        rests_on = patients if few > 1 else few
        ends = bootstrap.interval(value, of_draw[:, None], np.array([rests_on]))
        chance = float((found.blind <= k).mean())
    figures = dict(value=value, ci_low=ends[0], ci_high=ends[1], n=len(found.rank))
    return figures | dict(positives=positives, chance=chance, alone=few == 1)


def weighted_median(values: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """Median of [Q] values for integer weights [R, Q]: float64 [R], or a scalar without weights.

    As NumPy's of the values repeated as often as they weigh.
    """
    if weight is None:
        return np.median(values)
    order = np.argsort(values)
    ordered = values[order].astype(np.float64)
    upto = np.cumsum(weight[:, order], axis=1, dtype=np.int64)
    twice = 2 * upto
    lower = ordered[(twice >= upto[:, -1:]).argmax(axis=1)]
    upper = ordered[(twice > upto[:, -1:]).argmax(axis=1)]
    return (lower + upper) / 2


def _blind(own: np.ndarray) -> np.ndarray:
    """int [Q]: the place of each query's report, int [Q] from 0, among the distinct ones with the
    commonest first."""
    count = np.bincount(own)
    place = np.empty_like(count)
    place[np.argsort(-count, kind="stable")] = 1 + np.arange(len(count))
    return place[own]


def _checked(
    ecg: np.ndarray, text: np.ndarray, text_id: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors of the records and of the reports that they have, and which one each has."""
    ecg, text, text_id = np.asarray(ecg), np.asarray(text), np.asarray(text_id)
    if ecg.ndim != 2 or text.ndim != 2 or ecg.shape[1] != text.shape[1]:
        raise UserError(
            f"ECG embeddings {ecg.shape} and report embeddings {text.shape} are not of one space"
        )
    if not len(ecg):
        raise UserError("retrieval needs records with a report, and there are none")
    if text_id.shape != (len(ecg),) or text_id.dtype.kind not in "iu":
        raise UserError(f"text_id must be one whole number for each of {len(ecg)} records")
    if text_id.min() < 0 or text_id.max() >= len(text):
        raise UserError(
            f"text_id is {text_id.min()} to {text_id.max()} for {len(text)} report embeddings"
        )
    used, own = np.unique(text_id, return_inverse=True)
    return unit(ecg, "a record's"), unit(text[used], "a report's"), own


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float32: what float64 makes different by rounding alone is equal, and counts as such."""
    return (a @ b.T).astype(np.float32)


def _chunks(n: int) -> list[slice]:
    return [slice(start, start + _ROWS) for start in range(0, n, _ROWS)]
