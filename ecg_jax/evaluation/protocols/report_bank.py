"""The training reports in the joint space, and what zero-shot classification may ask of them. No
label is read.

An encoder was trained to find reports, and reports are written in sentences. So a class is looked
for among the reports' sentences first (`found`); then its prompt is written anew from the reports
that say it (`rewritten`), as a search engine widens a query by what it found at first (Rocchio
1971), or an ECG's class is what the reports of ECGs like it say (`scores`). Kin: X-MoRe (Eom et al.
2023, arXiv 2308.15273).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ecg_jax.errors import UserError
from ecg_jax.evaluation.protocols.zero_shot import centred, unit
from ecg_jax.runtime import files

FILE = "bank.npz"  # in a run's folder, of its best checkpoint
SHARPNESS = 0.02  # of `rewritten`, chosen on PTB-XL's fold 9 (docs/results.md)
_ROWS = 512  # records at a time: [512, M] similarities


class Bank(NamedTuple):
    """Attributes:
    embedding: float32 [M, E], unit vectors, one for each distinct report.
    count: int64 [M], how many records have it.
    sentence: float32 [S, E], unit vectors, one for each distinct sentence.
    part: int32 [L], report after report, the rows in `sentence` of what it is made of.
    start: int32 [M], where a report begins in `part`.
    """

    embedding: np.ndarray
    count: np.ndarray
    sentence: np.ndarray
    part: np.ndarray
    start: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """float64 [E], the mean training report."""
        return np.average(self.embedding.astype(np.float64), axis=0, weights=self.count)

    @property
    def mean_sentence(self) -> np.ndarray:
        """float64 [E], the mean sentence, each as often as it is written."""
        lengths = np.diff(np.append(self.start, len(self.part)))
        often = np.bincount(self.part, np.repeat(self.count, lengths), len(self.sentence))
        return np.average(self.sentence.astype(np.float64), axis=0, weights=often)


def pieces(reports: Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Reports as lists of sentences -> the distinct sentences, `part` [L] and `start` [M].

    Raises:
      UserError: a report without a sentence.
    """
    if empty := [i for i, sentences in enumerate(reports) if not sentences]:
        raise UserError(f"report {empty[0]} of {len(reports)} has no sentence")
    distinct = sorted({sentence for sentences in reports for sentence in sentences})
    row = {sentence: i for i, sentence in enumerate(distinct)}
    part = np.array([row[s] for sentences in reports for s in sentences], np.int32)
    start = np.cumsum([0, *map(len, reports)])[:-1].astype(np.int32)
    return distinct, part, start


def found(bank: Bank, findings: Mapping[str, np.ndarray]) -> np.ndarray:
    """How well a report's best sentence fits a class's best finding: float32 [M, K], cosines less
    the mean sentence.

    Args:
      findings: class -> float [P, E], its findings in the joint space.
    """
    mean = bank.mean_sentence
    sentence = centred(bank.sentence, mean)
    best = [(sentence @ centred(x, mean).T).max(axis=1) for x in findings.values()]
    return np.maximum.reduceat(np.stack(best, axis=1)[bank.part], bank.start, axis=0)


def rewritten(bank: Bank, classes: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Prompts written anew from the reports: unit vectors float32 [K, E], for centred ECGs.

        p_k' = unit(p_k + unit(sum_r w_rk t_r - mean)),  w_rk ~ n_r exp(found_rk / SHARPNESS)

    Args:
      classes: float [K, E], the prompts p, centred.
      found: float [M, K], from `found`.
    """
    weight = np.exp((found - found.max(axis=0)) / SHARPNESS) * bank.count[:, None]
    said = (weight / weight.sum(axis=0)).T @ bank.embedding
    both = centred_mean(said, bank.mean) + unit(classes, "a class's")
    return unit(both, "a rewritten prompt's").astype(np.float32)


def centred_mean(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Means of unit vectors [K, E] less another mean, of length one: float64."""
    return unit(x - mean, "what the reports of a class say: its")


def softmax(x: np.ndarray, temperature: float) -> np.ndarray:
    """Over the last axis, in float32."""
    x = np.asarray(x, np.float32) / np.float32(temperature)
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def read(
    ecg: np.ndarray, bank: Bank, says: Sequence[np.ndarray], temperature: float
) -> list[np.ndarray]:
    """What the reports of ECGs like a record say: the mean of `says` over the reports, weighted by
    softmax over them of cos(ECG, report) / temperature and by how often each occurs.

    Args:
      ecg: float [N, E], in the joint space.
      says: float [M, K] each, what the reports say of K classes.

    Returns:
      float32 [N, K] for each of `says`.
    """
    ecg = unit(ecg, "a record's").astype(np.float32)
    often = np.log(bank.count).astype(np.float32)
    joined, ends = np.concatenate(says, axis=1), np.cumsum([s.shape[1] for s in says])[:-1]
    rows = []
    for begin in range(0, len(ecg), _ROWS):
        likeness = ecg[begin : begin + _ROWS] @ bank.embedding.T
        rows.append(softmax(likeness + np.float32(temperature) * often, temperature) @ joined)
    return np.split(np.concatenate(rows), ends, axis=1)


def write(bank: Bank, step: int, path: Path) -> None:
    """Writes embeddings and counts, no text, and the checkpoint's step; whole or not at all.

    Raises:
      UserError: the file cannot be written.
    """
    files.write_arrays(path, {"step": step}, bank._asdict())


def load(path: Path) -> tuple[Bank, int] | None:
    """What `write` wrote, and its step; None where there is no file.

    Raises:
      UserError: the file is damaged.
    """
    if not path.exists():
        return None
    with files.open_arrays(path) as (header, arrays):
        return Bank(*(arrays[name] for name in Bank._fields)), header["step"]
