"""WFDB headers, read strictly: what is not stated or not understood is refused.

The format: https://physionet.org/physiotools/wag/header-5.htm. wfdb itself fills in what a header
leaves out (250 Hz, 200 units per mV) and takes 80 times as long; it is the tests' oracle.
"""

import dataclasses
import functools
import hashlib
import math
import re
from pathlib import Path, PurePosixPath

from tfds_builders.errors import RecordError
from tfds_builders.files import capitals, check_sha256

# File, format, gain, resolution, zero, initial value, checksum, block size, name. A unit may be
# left out: then it is mV by the format's definition, as in MIT-BIH.
_FIELDS = 9
_RATE = re.compile(r"(\d+(?:\.\d*)?)(?:/\d+(?:\.\d*)?(?:\(-?\d+(?:\.\d*)?\))?)?")
_FORMAT = re.compile(r"(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?")
_GAIN = re.compile(r"(\d+\.?\d*(?:e[+-]?\d+)?)(?:\((-?\d+)\))?(?:/(.+))?", re.IGNORECASE)
_COUNT = re.compile(r"\d{1,12}")
_INTEGER = re.compile(r"[+-]?\d{1,12}")


@dataclasses.dataclass(frozen=True)
class Signal:
    """One lead as its header describes it; `gain` in digital units per `unit`."""

    file: str
    format: str
    offset: int  # bytes before the first sample
    gain: float
    baseline: int
    unit: str
    checksum: int
    name: str


@dataclasses.dataclass(frozen=True)
class Header:
    """A header of one segment, with `num_samples` of every lead at `rate` Hz."""

    name: str
    rate: float
    num_samples: int
    signals: tuple[Signal, ...]
    comments: tuple[str, ...]


def read_header(path: Path, sha256: str = "") -> Header:
    """Raises RecordError where `path` is missing, leaves doubt, is another record's header, or has
    another digest than `sha256`, if one is given."""
    header = parse_header(read_text(path, sha256), path)
    stem = path.name.removesuffix(".hea")
    for name in (header.name, *dict.fromkeys(signal.file for signal in header.signals)):
        # Some of the Challenge's headers give the signal file's name for the record's.
        if PurePosixPath(name).name != name or name not in (stem, f"{stem}.mat", f"{stem}.dat"):
            raise RecordError(f"{path}: names {name[:80]!r}, so it is another record's header")
    return header


def read_text(path: Path, sha256: str = "") -> str:
    """A header's text, in UTF-8 or else in Latin-1, as a µ may be written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file{capitals(path)}") from None
    if sha256:
        check_sha256(path, hashlib.sha256(data).hexdigest(), sha256)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def parse_header(text: str, where: Path) -> Header:
    """Raises RecordError, whose message begins with `where`."""
    lines = [line.strip() for line in text.splitlines()]
    comments = tuple(line for line in lines if line.startswith("#"))
    stated = [line for line in lines if line and not line.startswith("#")]
    fields = stated[0].split() if stated else []
    if len(fields) < 4:
        raise RecordError(f"{where}: gives no sampling rate or no number of samples")
    name, num_signals, rate, num_samples = fields[:4]
    if "/" in name or not _COUNT.fullmatch(num_signals) or int(num_signals) == 0:
        raise RecordError(f"{where}: an empty or multi-segment record, {stated[0][:80]!r}")
    if not _COUNT.fullmatch(num_samples) or int(num_samples) == 0:
        raise RecordError(f"{where}: number of samples {num_samples[:80]!r}")
    if not (match := _RATE.fullmatch(rate)) or not 0 < float(match[1]) < 1e6:
        raise RecordError(f"{where}: sampling rate {rate[:80]!r} is not a plain number above zero")
    if len(stated) - 1 != int(num_signals):
        raise RecordError(f"{where}: describes {len(stated) - 1} signals, states {num_signals}")
    signals = tuple(_signal(line, where) for line in stated[1:])
    return Header(name, float(match[1]), int(num_samples), signals, comments)


def _signal(line: str, where: Path) -> Signal:
    fields = line.split(maxsplit=_FIELDS - 1)
    if len(fields) < _FIELDS:
        raise RecordError(f"{where}: a signal without gain, checksum or lead name: {line[:80]!r}")
    file, form, scale, resolution, zero, _, checksum, _, name = fields
    stated, gain = _format(form), _gain(scale)
    if isinstance(stated, str):
        raise RecordError(f"{where}: {stated}")
    if gain is None:
        raise RecordError(f"{where}: a signal with gain {scale[:80]!r} (uncalibrated)")
    for field in (resolution, zero, checksum):
        if not _INTEGER.fullmatch(field):
            raise RecordError(f"{where}: {field[:80]!r} of lead {name[:80]} is not a whole number")
    baseline = int(zero if gain[1] is None else gain[1])
    if abs(baseline) >= 2**31 or not math.isfinite(gain[0]):
        raise RecordError(
            f"{where}: gain {scale[:80]!r} of lead {name[:80]}, baseline {str(baseline)[:20]}"
        )
    return Signal(
        file=file,
        format=stated[0],
        offset=stated[1],
        gain=gain[0],
        baseline=baseline,
        unit=gain[2],
        checksum=int(checksum),
        name=name.strip(),
    )


# Nearly all records of a dataset say the same: it is read once.
@functools.lru_cache(maxsize=256)
def _format(text: str) -> tuple[str, int] | str:
    """Format and offset in bytes; or why it cannot be read."""
    if not (match := _FORMAT.fullmatch(text)):
        return f"signal format {text[:80]!r} is not supported"
    if int(match[2] or 1) != 1:
        return f"more than one sample per frame ({text})"
    if int(match[3] or 0) != 0:
        return f"signals are skewed against each other ({text})"
    return match[1], int(match[4] or 0)


@functools.lru_cache(maxsize=256)
def _gain(text: str) -> tuple[float, str | None, str] | None:
    """Gain, baseline (None where there is none) and unit; None for what is no gain."""
    match = _GAIN.fullmatch(text)
    if match is None or float(match[1]) == 0:
        return None
    return float(match[1]), match[2], match[3] or "mV"
