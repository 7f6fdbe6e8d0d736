"""Samples that a recorder marks as missing: short gaps are bridged, a lead with more is masked."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfds_builders.errors import RecordError
from tfds_builders.header import Header
from tfds_builders.leads import LEADS
from tfds_builders.records import (
    Recording,
    lead_columns,
    to_microvolts,
    to_recording,
    verified_header,
)
from tfds_builders.samples import marked_invalid, read_samples

# Of a lead's samples: half a second of ten. Beyond that a line drawn through the gap hides beats.
MAX_MISSING = 0.05


class WithGaps(NamedTuple):
    """recording; missing int32 [12], marked samples of every lead as published; its header."""

    recording: Recording
    missing: np.ndarray
    header: Header


def read_wfdb_with_gaps(
    stem: Path,
    rate: int,
    *,
    sha256: Mapping[str, str] | None = None,
    required_leads: Collection[str] = (),
    published_rate: float | None = None,
    max_missing: float = MAX_MISSING,
) -> WithGaps:
    """`records.read_wfdb` for a dataset whose recordings have gaps.

    A lead of which more than the share `max_missing` is marked is masked: zeros, and false in
    `lead_mask`. In the others a straight line joins the samples around a gap; at an end the nearest
    sample is held. Raises RecordError as `read_wfdb` does, and where no lead is left.
    """
    header, path = verified_header(stem, sha256 or {}, published_rate)
    samples = read_samples(header, path, allow_invalid=True)
    marked = marked_invalid(samples, header)
    names = [signal.name for signal in header.signals]
    columns = lead_columns(names, path)
    missing = np.zeros(len(LEADS), np.int32)
    missing[columns] = marked.sum(axis=0)
    kept = marked.mean(axis=0) <= max_missing
    if not kept.any():
        raise RecordError(
            f"{path}: more than {max_missing:.0%} of the samples are missing in all of its leads"
        )
    if marked.any():
        samples = bridged(np.where(kept, samples, 0), marked & kept)
    recording = to_recording(
        to_microvolts(samples, header, path), names, header.rate, rate, path, required_leads
    )
    if not kept.all():
        recording.lead_mask[[columns[i] for i in np.flatnonzero(~kept)]] = False
        recording.ecg[:, ~recording.lead_mask] = 0
    return WithGaps(recording, missing, header)


def bridged(samples: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """Samples [T, n] with straight lines through `gaps`, bool [T, n], in the samples' type if there
    are none, else float64. Every column needs a sample outside of its gaps."""
    if not gaps.any():
        return samples
    samples, at = samples.astype(np.float64), np.arange(len(samples))
    for column in np.flatnonzero(gaps.any(axis=0)):
        gap = gaps[:, column]
        samples[gap, column] = np.interp(at[gap], at[~gap], samples[~gap, column])
    return samples
