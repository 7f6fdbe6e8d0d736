"""WFDB headers, read strictly: what is not stated or not understood is refused.

The format: https://physionet.org/physiotools/wag/header-5.htm. wfdb itself fills in what a header
leaves out (250 Hz, 200 units per mV) and takes 80 times as long; it is the tests' oracle.
"""

import dataclasses
import re
from pathlib import Path, PurePosixPath

from tfds_builders.errors import RecordError
from tfds_builders.files import capitals

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


def read_header(path: Path) -> Header:
    """Raises RecordError where `path` is missing, leaves doubt, or is another record's header."""
    header = parse_header(read_text(path), path)
    stem = path.name.removesuffix(".hea")
    for name in (header.name, *dict.fromkeys(signal.file for signal in header.signals)):
        # Some of the Challenge's headers give the signal file's name for the record's.
        if PurePosixPath(name).name != name or name not in (stem, f"{stem}.mat", f"{stem}.dat"):
            raise RecordError(f"{path}: names {name[:80]!r}, so it is another record's header")
    return header


def read_text(path: Path) -> str:
    """A header's text, in UTF-8 or else in Latin-1, as a µ may be written."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file{capitals(path)}") from None
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
    if not (match := _FORMAT.fullmatch(form)):
        raise RecordError(f"{where}: signal format {form[:80]!r} is not supported")
    if int(match[2] or 1) != 1:
        raise RecordError(f"{where}: more than one sample per frame ({form})")
    if int(match[3] or 0) != 0:
        raise RecordError(f"{where}: signals are skewed against each other ({form})")
    gain = _GAIN.fullmatch(scale)
    if gain is None or float(gain[1]) == 0:
        raise RecordError(f"{where}: a signal with gain {scale[:80]!r} (uncalibrated)")
    for field in (resolution, zero, checksum):
        if not _INTEGER.fullmatch(field):
            raise RecordError(f"{where}: {field[:80]!r} of lead {name[:80]} is not a whole number")
    return Signal(
        file=file,
        format=match[1],
        offset=int(match[4] or 0),
        gain=float(gain[1]),
        baseline=int(zero if gain[2] is None else gain[2]),
        unit=gain[3] or "mV",
        checksum=int(checksum),
        name=name.strip(),
    )
