"""What a training step draws its soft targets from: `physiology`, in comparable units."""

from typing import Any, NamedTuple

import numpy as np

from ecg_jax.data.physiology import BEAT, RECORD, Physiology

CLIP = 5.0  # standard deviations
CLASSES = 8  # kinds of beats, found by k-means
# Positive numbers in their own units, which a cosine compares: beats a minute and ms.
RAW_RECORD = {"heart_rate": 1.0, "pr": 1000.0, "qrs": 1000.0, "qt": 1000.0}
RAW_BEAT = {"pre_rr": 1000.0, "post_rr": 1000.0, "qrs": 1000.0}
_SAMPLE = 20_000  # beats that k-means sees
_ROUNDS = 50


class Features(NamedTuple):
    """Of N records (or of a batch of them), K places for beats.

    Attributes:
      record: float32 [N, F], standardised by the training split's medians and absolute deviations,
        NaN where a record does not show it.
      record_raw: float32 [N, R], the numbers of `RAW_RECORD`.
      peak: int32 [N, K], the samples of R peaks, -1 after the last.
      beat: float32 [N, K, G], standardised.
      beat_raw: float32 [N, K, R].
      beat_class: int32 [N, K], which of `CLASSES` kinds of beats, -1 of none.
    """

    record: Any
    record_raw: Any
    peak: Any
    beat: Any
    beat_raw: Any
    beat_class: Any


def of(found: Physiology, seed: int = 0) -> Features:
    """The table of a split. Classes of beats are clusters: a hard target needs some, and labels of
    MIT-BIH's would leak into what is evaluated on it."""
    record, beat = standardised(found.record), standardised(found.beat)
    kinds = np.where(found.peak >= 0, clusters(beat, seed), -1)
    return Features(
        record,
        _raw(found.record, RECORD, RAW_RECORD),
        np.asarray(found.peak, np.int32),
        beat,
        _raw(found.beat, BEAT, RAW_BEAT),
        kinds.astype(np.int32),
    )


def blank(N: int, T: int, rate: float) -> Features:
    """Of records that show nothing."""
    from ecg_jax.data import physiology

    return of(physiology.blank(N, T, rate))


def standardised(x: np.ndarray) -> np.ndarray:
    """float32 [..., F]: median 0 and 1.4826 absolute deviations 1, clipped, NaN where it was; a
    number that does not vary is 0."""
    rows = x.reshape(-1, x.shape[-1]).astype(np.float64)
    out = np.full(rows.shape, np.nan, np.float32)
    for k, column in enumerate(rows.T):
        there = np.isfinite(column)
        if there.any():
            middle = np.median(column[there])
            spread = 1.4826 * np.median(np.abs(column[there] - middle)) or column[there].std()
            out[there, k] = np.clip((column[there] - middle) / (spread or 1.0), -CLIP, CLIP)
    return out.reshape(x.shape)


def clusters(beat: np.ndarray, seed: int) -> np.ndarray:
    """int64 [..., ]: the nearest of `CLASSES` centres that k-means finds (k-means++ starts); a
    missing number counts as the median."""
    rows = np.nan_to_num(beat.reshape(-1, beat.shape[-1]))
    there = np.isfinite(beat.reshape(-1, beat.shape[-1])).any(axis=1)
    if there.sum() < CLASSES:
        return np.zeros(beat.shape[:-1], np.int64)
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(np.flatnonzero(there))[:_SAMPLE]
    sample = rows[chosen].astype(np.float64)
    centres = sample[:1]
    while len(centres) < CLASSES:
        apart = _squares(sample, centres).min(axis=1)
        share = apart / apart.sum() if apart.sum() > 0 else None
        centres = np.concatenate([centres, sample[[rng.choice(len(sample), p=share)]]])
    for _ in range(_ROUNDS):
        nearest = _squares(sample, centres).argmin(axis=1)
        moved = np.stack(
            [
                sample[nearest == k].mean(axis=0) if (nearest == k).any() else centres[k]
                for k in range(CLASSES)
            ]
        )
        if np.allclose(moved, centres):
            break
        centres = moved
    return _squares(rows, centres).argmin(axis=1).reshape(beat.shape[:-1])


def _squares(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * a @ b.T


def _raw(x: np.ndarray, names: tuple[str, ...], units: dict[str, float]) -> np.ndarray:
    chosen = [names.index(name) for name in units]
    return (x[..., chosen] * np.array(list(units.values()))).astype(np.float32)
