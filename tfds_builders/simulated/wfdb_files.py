"""Writes WFDB signal files and headers byte for byte in the published datasets' style."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write_header(
    path: Path,
    rate_hz: int,
    samples: np.ndarray,
    leads: Sequence[str],
    signal_format: str,
    *,
    signed_checksum: bool,
    start: str = "",
    comments: Sequence[str] = (),
) -> None:
    """Writes `path` (.hea) for int [T, n] `samples`.

    `signal_format` is what stands between file name and initial value: file suffix, format, gain,
    resolution and zero. Checksums are sums of the samples modulo 65,536, which some datasets write
    signed.
    """
    name = path.stem
    suffix, fields = signal_format.split(" ", 1)
    lines = [f"{name} {len(leads)} {rate_hz} {len(samples)}{start}"]
    for lead, column in zip(leads, samples.T.astype(np.int64), strict=True):
        checksum = int(column.sum()) % 65_536
        if signed_checksum and checksum >= 32_768:
            checksum -= 65_536
        lines.append(f"{name}{suffix} {fields} {column[0]} {checksum} 0 {lead}")
    path.write_text("\n".join([*lines, *comments, ""]), encoding="utf-8", newline="\n")


def write_format_16(path: Path, samples: np.ndarray) -> None:
    """Two bytes a sample, little endian, leads in turn."""
    path.write_bytes(samples.astype("<i2").tobytes())


def write_format_212(path: Path, samples: np.ndarray) -> None:
    """Two 12-bit samples in three bytes: int [T, n] in -2048..2047, T x n even."""
    first, second = samples.reshape(-1, 2).T.astype(np.uint16) & 0xFFF
    packed = np.stack([first & 0xFF, (first >> 8) | ((second >> 8) << 4), second & 0xFF], axis=1)
    path.write_bytes(packed.astype(np.uint8).tobytes())


def write_sha256(folder: Path) -> None:
    """Writes `SHA256SUMS.txt` over all files below `folder`."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    lines = [
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()} {name}\n" for name in names
    ]
    (folder / "SHA256SUMS.txt").write_text("".join(lines), encoding="utf-8", newline="\n")
