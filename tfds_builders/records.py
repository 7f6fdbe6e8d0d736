"""From a WFDB record to int16 microvolts in one lead order, refusing whatever is doubtful.

Everything here is free of TFDS, so that worker processes start quickly and stay small.
"""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import wfdb

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")

_LEAD_INDEX = {name.casefold(): i for i, name in enumerate(LEADS)} | {"mlii": LEADS.index("II")}
_MICROVOLTS = {"mv": 1000.0, "uv": 1.0, "µv": 1.0, "μv": 1.0}  # micro sign and Greek mu

# WFDB signal formats of fixed width: bits per sample, and the value that marks an invalid one
# (https://physionet.org/physiotools/wag/signal-5.htm).
_FORMATS = {
    "16": (16, -(2**15)),
    "24": (24, -(2**23)),
    "32": (32, -(2**31)),
    "61": (16, -(2**15)),
    "80": (8, -(2**7)),
    "160": (16, -(2**15)),
    "212": (12, -(2**11)),
}
_INT16_MAX = 32767
_GAIN = re.compile(r"(\d+\.?\d*(?:e[+-]?\d+)?)(\(-?\d+\))?(/.+)?", re.IGNORECASE)  # 200(1024)/mV
_MAX_RATIO = 1000  # up- or down-sampling factor above which a rate is a typing error


class RecordError(ValueError):
    """One record can't be used; the message names the file and says why."""


class SourceError(ValueError):
    """The source folder as a whole can't be used."""


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
) -> Recording:
    """Reads the record `stem`.hea at `rate` Hz.

    `sha256` maps names of files beside the header to the digests that they must have. Raises
    RecordError for anything that would make the samples or their meaning uncertain.
    """
    header_path = stem.with_name(stem.name + ".hea")
    for name, digest in (sha256 or {}).items():
        verify_sha256(stem.with_name(name), digest)
    record = _read_record(stem, header_path)
    _check_checksums(record, header_path)
    _check_invalid(record, header_path)
    gain = np.array(record.adc_gain) / [
        _microvolts_per_unit(unit, header_path) for unit in record.units
    ]
    microvolts = (record.d_signal - np.array(record.baseline)) / gain
    return to_recording(microvolts, record.sig_name, record.fs, rate, header_path, required_leads)


def to_recording(
    microvolts: np.ndarray,
    names: Sequence[str],
    fs: float,
    rate: int,
    where: Path,
    required_leads: Collection[str] = (),
) -> Recording:
    """Places float microvolts [T, n] of leads `names` in the fixed order, as int16 at `rate` Hz."""
    if not np.isfinite(microvolts).all():
        raise RecordError(f"{where}: holds samples that are not numbers")
    if (peak := np.abs(microvolts).max(initial=0.0)) > _INT16_MAX:
        raise RecordError(
            f"{where}: a sample of {peak / 1000:.1f} mV does not fit 16-bit microvolts (±32.767 mV)"
        )
    columns = lead_columns(names, where)
    if missing := set(required_leads) - {LEADS[i] for i in columns}:
        raise RecordError(f"{where}: lacks lead {', '.join(sorted(missing, key=LEADS.index))}")
    resampled = resample(microvolts, fs, rate, where)
    # The anti-aliasing filter may overshoot a step: saturate, never wrap round.
    samples = np.clip(np.rint(resampled), -_INT16_MAX, _INT16_MAX).astype(np.int16)
    ecg = np.zeros((len(samples), len(LEADS)), np.int16)
    ecg[:, columns] = samples
    return Recording(ecg, np.isin(np.arange(len(LEADS)), columns))


def lead_columns(names: Sequence[str], where: Path) -> list[int]:
    """Indices in LEADS of the named leads (case does not matter; MLII is placed as II)."""
    columns = []
    for name in names:
        index = _LEAD_INDEX.get((name or "").strip().casefold())
        if index is None:
            raise RecordError(f"{where}: unknown lead name {name!r}; known: {', '.join(LEADS)}")
        if index in columns:
            raise RecordError(f"{where}: lead {LEADS[index]} occurs twice")
        columns.append(index)
    return columns


def resample(signal: np.ndarray, fs: float, rate: int, where: Path) -> np.ndarray:
    """Anti-aliased polyphase resampling of [T, n] from `fs` to `rate` Hz: ceil(T rate/fs) rows."""
    if fs <= 0:
        raise RecordError(f"{where}: sampling rate of {fs} Hz")
    ratio = Fraction(rate) / Fraction(fs).limit_denominator(1000)
    if ratio == 1:
        return signal
    if max(ratio.numerator, ratio.denominator) > _MAX_RATIO:
        raise RecordError(f"{where}: can't resample from {fs} Hz to {rate} Hz")
    from scipy.signal import resample_poly  # 2 s to import, and not needed at the native rate

    # Beyond the ends the line through them goes on: zeros would ring on a baseline offset.
    return resample_poly(signal, ratio.numerator, ratio.denominator, axis=0, padtype="line")


def _read_record(stem: Path, header_path: Path) -> wfdb.Record:
    """The record with its digital samples, once its header is known to be explicit."""
    _check_header_text(header_path)
    try:
        record = wfdb.rdrecord(str(stem), physical=False)
    except Exception as error:
        # wfdb's words for a short file are about array shapes: look for that first.
        _check_header(header := _read_header(header_path), header_path)
        _check_sizes(header, header_path)
        raise RecordError(f"{header_path}: unreadable samples ({error})") from error
    _check_header(record, header_path)
    _check_sizes(record, header_path)
    return record


def _read_header(path: Path) -> wfdb.Record:
    try:
        return wfdb.rdheader(str(path.with_suffix("")))
    except Exception as error:
        raise RecordError(f"{path}: not a WFDB header ({error})") from error


def _check_header_text(path: Path) -> None:
    """wfdb fills in 250 Hz and 200 units per mV where the header is silent: refuse."""
    if not path.is_file():
        raise RecordError(f"{path}: no such file")
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [line.split() for line in text.splitlines() if line.strip() and line.lstrip()[0] != "#"]
    if not lines or len(lines[0]) < 4:
        raise RecordError(f"{path}: gives no sampling rate or no number of samples")
    for fields in lines[1:]:
        # File, format, gain, resolution, zero, initial value, checksum, block size, name. A unit
        # may be left out: then it is mV by the format's definition, as in MIT-BIH.
        if len(fields) < 9:
            raise RecordError(f"{path}: a signal without gain, checksum or lead name")
        gain = _GAIN.fullmatch(fields[2])
        if gain is None or float(gain[1]) == 0:
            raise RecordError(f"{path}: a signal with gain {fields[2]!r} (uncalibrated)")


def _check_header(header: wfdb.Record, path: Path) -> None:
    if not isinstance(header, wfdb.Record) or not header.n_sig or not header.sig_len:
        raise RecordError(f"{path}: an empty or multi-segment record")
    if set(header.samps_per_frame) != {1}:
        raise RecordError(f"{path}: more than one sample per frame")
    if unknown := set(header.fmt) - set(_FORMATS):
        raise RecordError(f"{path}: signal format {', '.join(sorted(unknown))} is not supported")


def _check_sizes(header: wfdb.Record, header_path: Path) -> None:
    for name in dict.fromkeys(header.file_name):
        path = header_path.with_name(name)
        if not path.is_file():
            raise RecordError(f"{path}: no such file")
        signals = [i for i, other in enumerate(header.file_name) if other == name]
        bits = sum(_FORMATS[header.fmt[i]][0] for i in signals) * header.sig_len
        expected = (header.byte_offset[signals[0]] or 0) + (bits + 7) // 8
        if (size := path.stat().st_size) < expected:
            raise RecordError(f"{path}: truncated, {size} of {expected} bytes")


def _check_checksums(record: wfdb.Record, path: Path) -> None:
    """Sums of samples modulo 2^16; some headers write them signed, so both are reduced."""
    for i, stated in enumerate(record.checksum):
        actual = int(record.d_signal[:, i].sum()) % 65536
        if stated is not None and stated % 65536 != actual:
            raise RecordError(
                f"{path}: checksum of {record.file_name[i]}, lead {record.sig_name[i]}, "
                f"is {actual}, header says {stated}"
            )


def _check_invalid(record: wfdb.Record, path: Path) -> None:
    invalid = [_FORMATS[fmt][1] for fmt in record.fmt]
    if count := int((record.d_signal == invalid).sum()):
        names = ", ".join(dict.fromkeys(record.file_name))
        raise RecordError(f"{path}: {count} samples in {names} are marked invalid")


def _microvolts_per_unit(unit: str | None, path: Path) -> float:
    try:
        return _MICROVOLTS[(unit or "").casefold()]
    except KeyError:
        raise RecordError(f"{path}: unknown unit {unit!r}; known: mV, uV") from None


def load_sha256(folder: Path) -> dict[str, str]:
    """`SHA256SUMS.txt` of a folder as {relative path: hex digest}; empty where there is none."""
    path = folder / "SHA256SUMS.txt"
    if not path.is_file():
        return {}
    return parse_sha256(path.read_text(encoding="utf-8"), path)


def parse_sha256(text: str, where: Path | str) -> dict[str, str]:
    digests = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        match = re.fullmatch(r"([0-9a-fA-F]{64})\s+\*?(?:\./)?(.+)", line)
        if match is None:
            raise SourceError(f"{where}: not a SHA-256 line: {line[:80]!r}")
        digests[match[2]] = match[1].lower()
    return digests


def digests_of(sums: Mapping[str, str], stem: str, suffixes: Sequence[str]) -> dict[str, str]:
    """{file name: digest} of one record's files, `stem` being its path in the folder."""
    paths = (stem + suffix for suffix in suffixes)
    return {PurePosixPath(path).name: sums[path] for path in paths if path in sums}


def verify_sha256(path: Path, expected: str) -> None:
    """Raises RecordError where the file is missing or differs."""
    if not path.is_file():
        raise RecordError(f"{path}: no such file")
    if (actual := sha256_of(path)) != expected:
        raise RecordError(
            f"{path}: SHA-256 {actual[:12]}..., SHA256SUMS.txt says {expected[:12]}..."
        )


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
