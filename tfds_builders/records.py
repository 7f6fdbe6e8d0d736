"""From a WFDB record to int16 microvolts in one lead order, refusing whatever is doubtful.

Everything here is free of TFDS.
"""

import functools
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfds_builders.errors import RecordError
from tfds_builders.files import verify_sha256
from tfds_builders.header import Header, Signal, read_header
from tfds_builders.leads import LEADS
from tfds_builders.samples import read_samples

_COLUMNS: dict[tuple[str, ...], list[int]] = {}  # of `lead_columns`: most records name leads alike
_MOST_COLUMNS = 256
_LEAD_INDEX = {name.casefold(): i for i, name in enumerate(LEADS)} | {"mlii": LEADS.index("II")}
_MICROVOLTS = {"mv": 1000.0, "uv": 1.0, "µv": 1.0, "μv": 1.0}  # micro sign and Greek mu
_INT16_MAX = 32767
_MAX_RATIO = 1000  # up- or down-sampling factor above which a rate is a typing error


class Recording(NamedTuple):
    """ecg: int16 [T, 12] µV, zeros where a lead is missing; lead_mask: bool [12]."""

    ecg: np.ndarray
    lead_mask: np.ndarray


def read_wfdb(
    stem: Path,
    rate: int,
    *,
    sha256: Mapping[str, str] | None = None,
    required_leads: Collection[str] = (),
    published_rate: float | None = None,
) -> Recording:
    """Reads the record `stem`.hea at `rate` Hz.

    `sha256` maps names of files beside the header to the digests that they must have;
    `published_rate` in Hz is that of all of a dataset's records, where it is known. Raises
    RecordError for anything that would make the samples or their meaning uncertain.
    """
    header, path = verified_header(stem, sha256 or {}, published_rate)
    microvolts = to_microvolts(read_samples(header, path), header, path)
    names = [signal.name for signal in header.signals]
    return to_recording(microvolts, names, header.rate, rate, path, required_leads)


def verified_header(
    stem: Path, sha256: Mapping[str, str], published_rate: float | None
) -> tuple[Header, Path]:
    """A record's header and its path, its files' digests compared; raises as `read_wfdb`."""
    path = stem.with_name(stem.name + ".hea")
    for name, digest in sha256.items():
        if name != path.name:
            verify_sha256(stem.with_name(name), digest)
    header = read_header(path, sha256.get(path.name, ""))
    if published_rate is not None and header.rate != published_rate:
        raise RecordError(
            f"{path}: states {header.rate:g} Hz, the dataset is published at {published_rate:g} Hz"
        )
    return header, path


def to_microvolts(samples: np.ndarray, header: Header, path: Path) -> np.ndarray:
    """Digital samples [T, n] in microvolts; raises RecordError for a unit that is none of them."""
    baseline = np.array([signal.baseline for signal in header.signals])
    gain = np.array([_units_per_microvolt(signal, path) for signal in header.signals])
    # Most records are in microvolts as they are: nothing to do then.
    plain = not baseline.any() and (gain == 1).all()
    return samples if plain else (samples - baseline) / gain


def to_recording(
    microvolts: np.ndarray,
    names: Sequence[str],
    fs: float,
    rate: int,
    where: Path,
    required_leads: Collection[str] = (),
) -> Recording:
    """Places microvolts [T, n] of leads `names` in the fixed order, as int16 at `rate` Hz."""
    if microvolts.dtype != np.int16:
        _check_range(microvolts, where)
    columns = lead_columns(names, where)
    if missing := set(required_leads) - {LEADS[i] for i in columns}:
        raise RecordError(f"{where}: lacks lead {', '.join(sorted(missing, key=LEADS.index))}")
    samples = resample(microvolts, fs, rate, where)
    if samples.dtype != np.int16:
        # The anti-aliasing filter may overshoot a step: saturate, never wrap round.
        samples = np.clip(np.rint(samples), -_INT16_MAX, _INT16_MAX).astype(np.int16)
    if columns == list(range(len(LEADS))):
        ecg = samples.copy()
    else:
        ecg = np.zeros((len(samples), len(LEADS)), np.int16)
        ecg[:, columns] = samples
    lead_mask = np.zeros(len(LEADS), np.bool_)
    lead_mask[columns] = True
    return Recording(ecg, lead_mask)


def _check_range(microvolts: np.ndarray, where: Path) -> None:
    if microvolts.dtype.kind == "f" and not np.isfinite(microvolts).all():
        raise RecordError(f"{where}: holds samples that are not numbers")
    peak = max(microvolts.max(initial=0), -microvolts.min(initial=0).astype(float))
    if peak > _INT16_MAX:
        raise RecordError(
            f"{where}: a sample of {peak / 1000:.1f} mV does not fit 16-bit microvolts (±32.767 mV)"
        )


def lead_columns(names: Sequence[str], where: Path) -> list[int]:
    """Indices in LEADS of the named leads (case does not matter; MLII is placed as II)."""
    if (known := _COLUMNS.get(key := tuple(names))) is not None:
        return list(known)
    columns = []
    for name in names:
        index = _LEAD_INDEX.get((name or "").strip().casefold())
        if index is None:
            raise RecordError(f"{where}: unknown lead name {name!r}; known: {', '.join(LEADS)}")
        if index in columns:
            raise RecordError(f"{where}: lead {LEADS[index]} occurs twice")
        columns.append(index)
    if len(_COLUMNS) < _MOST_COLUMNS:
        _COLUMNS[key] = columns
    return list(columns)


def known_lead(name: str) -> bool:
    """Whether `lead_columns` places a lead of this name."""
    return (name or "").strip().casefold() in _LEAD_INDEX


def resample(signal: np.ndarray, fs: float, rate: int, where: Path) -> np.ndarray:
    """Anti-aliased polyphase resampling of [T, n] from `fs` to `rate` Hz: ceil(T rate/fs) rows."""
    if fs <= 0:
        raise RecordError(f"{where}: sampling rate of {fs} Hz")
    ratio = _ratio(fs, rate)
    if ratio == 1:
        return signal
    if max(ratio.numerator, ratio.denominator) > _MAX_RATIO:
        raise RecordError(f"{where}: can't resample from {fs} Hz to {rate} Hz")
    from scipy.signal import resample_poly  # 2 s to import, and not needed at the native rate

    # Beyond the ends the line through them goes on: zeros would ring on a baseline offset.
    return resample_poly(signal, ratio.numerator, ratio.denominator, axis=0, padtype="line")


@functools.lru_cache(maxsize=64)
def _ratio(fs: float, rate: int) -> Fraction:
    return Fraction(rate) / Fraction(fs).limit_denominator(1000)


def _units_per_microvolt(signal: Signal, path: Path) -> float:
    try:
        return signal.gain / _MICROVOLTS[signal.unit.casefold()]
    except KeyError:
        raise RecordError(f"{path}: unknown unit {signal.unit!r}; known: mV, uV") from None
