"""Samples of WFDB signal files: https://physionet.org/physiotools/wag/signal-5.htm."""

from pathlib import Path

import numpy as np

from tfds_builders.errors import RecordError
from tfds_builders.files import capitals
from tfds_builders.header import Header, Signal

# Formats of fixed width: bits per sample, and the value that marks an invalid one.
FORMATS = {
    "16": (16, -(2**15)),
    "24": (24, -(2**23)),
    "32": (32, -(2**31)),
    "61": (16, -(2**15)),
    "80": (8, -(2**7)),
    "160": (16, -(2**15)),
    "212": (12, -(2**11)),
}


def read_samples(header: Header, path: Path, *, allow_invalid: bool = False) -> np.ndarray:
    """Digital samples int [T, n] of all signals, from the files beside the header at `path`.

    Raises RecordError where a file is missing or short, a checksum differs or a sample is marked
    invalid; with `allow_invalid` those are left as they are (`marked_invalid` finds them).
    """
    files: dict[str, list[Signal]] = {}
    for signal in header.signals:
        if signal.format not in FORMATS:
            raise RecordError(f"{path}: signal format {signal.format} is not supported")
        files.setdefault(signal.file, []).append(signal)
    parts = [
        _read_file(path.with_name(name), signals, header.num_samples, path)
        for name, signals in files.items()
    ]
    samples = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
    ordered = [signal for signals in files.values() for signal in signals]
    if ordered != list(header.signals):
        raise RecordError(f"{path}: the signals of one file do not stand together")
    _check_sums(samples, header, path)
    if not allow_invalid:
        _check_valid(samples, header, path)
    return samples


def marked_invalid(samples: np.ndarray, header: Header) -> np.ndarray:
    """bool [T, n], true where a sample is the mark that its format has for a missing one."""
    return samples == np.array([FORMATS[signal.format][1] for signal in header.signals])


def _read_file(
    path: Path, signals: list[Signal], num_samples: int, header_path: Path
) -> np.ndarray:
    if len({(signal.format, signal.offset) for signal in signals}) > 1:
        raise RecordError(f"{header_path}: signals of {path.name} differ in format or offset")
    form, offset = signals[0].format, signals[0].offset
    count = num_samples * len(signals)
    expected = offset + (FORMATS[form][0] * count + 7) // 8
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise RecordError(f"{path}: no such file{capitals(path)}") from None
    if len(data) < expected:
        raise RecordError(f"{path}: truncated, {len(data)} of {expected} bytes")
    return decode(data[offset:expected], form, count).reshape(num_samples, len(signals))


def decode(data: bytes, form: str, count: int) -> np.ndarray:
    """`count` samples of a format; int16, or int32 where the format is wider."""
    match form:
        case "16":
            return np.frombuffer(data, "<i2").astype(np.int16, copy=False)
        case "61":
            return np.frombuffer(data, ">i2").astype(np.int16)
        case "160":
            return (np.frombuffer(data, "<u2").astype(np.int32) - 2**15).astype(np.int16)
        case "80":
            return np.frombuffer(data, np.uint8).astype(np.int16) - 2**7
        case "32":
            return np.frombuffer(data, "<i4").astype(np.int32, copy=False)
        case "24":
            low, middle, high = np.frombuffer(data, np.uint8).reshape(-1, 3).T.astype(np.int32)
            return _signed(low | middle << 8 | high << 16, 24)
        case "212":
            return _decode_212(data, count)
    raise AssertionError(form)


def _decode_212(data: bytes, count: int) -> np.ndarray:
    """Two samples in three bytes; of an odd last sample the two bytes that hold it."""
    padded = np.zeros(-(-count // 2) * 3, np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    low, middle, high = padded.reshape(-1, 3).T.astype(np.int16)
    pairs = np.stack([low | (middle & 0x0F) << 8, high | (middle >> 4) << 8], axis=1)
    return _signed(pairs.reshape(-1)[:count], 12)


def _signed(values: np.ndarray, bits: int) -> np.ndarray:
    """Two's complement of `bits`."""
    sign = 1 << (bits - 1)
    return (values ^ sign) - sign


def _check_sums(samples: np.ndarray, header: Header, path: Path) -> None:
    """Checksums are sums of samples modulo 2^16, which some headers write signed."""
    sums = samples.sum(axis=0, dtype=np.int64) % 65536
    for signal, actual in zip(header.signals, sums.tolist(), strict=True):
        if signal.checksum % 65536 != actual:
            raise RecordError(
                f"{path}: checksum of {signal.file}, lead {signal.name}, is {actual}, "
                f"header says {signal.checksum}"
            )


def _check_valid(samples: np.ndarray, header: Header, path: Path) -> None:
    invalid = np.array([FORMATS[signal.format][1] for signal in header.signals])
    if (samples.min(axis=0) <= invalid).any():
        count = int((samples == invalid).sum())
        names = ", ".join(dict.fromkeys(signal.file for signal in header.signals))
        raise RecordError(f"{path}: {count} samples in {names} are marked invalid")
