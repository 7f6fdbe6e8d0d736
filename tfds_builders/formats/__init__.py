"""Recordings as users bring them, read into microvolts: WFDB, CSV, NPY, EDF and BDF, DICOM,
GE MUSE, Philips Sierra, HL7 aECG, SCP-ECG, ISHNE.

What a file is, its content says, not its name. Free of TFDS; the packages that a format needs are
the extra `formats`.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tfds_builders.errors import RecordError, SourceError
from tfds_builders.files import capitals
from tfds_builders.formats import arrays, dicom, edf, vendors, wfdb
from tfds_builders.formats.found import Found

TABLES = (".csv", ".tsv", ".txt")
_HEAD = 8192  # bytes that are looked at to tell a format
_XML = {
    r"<\s*restingecgdata[\s>]": "Philips Sierra",
    r"<\s*restingecg[\s>]": "GE MUSE",
    r"<\s*(?:[\w.-]+:)?annotatedecg[\s>]": "HL7 aECG",
}


class Stated(NamedTuple):
    """What a caller says of a file that does not say it itself: rate in Hz, the unit ("mV", "uV",
    "V" or such as "4.88 uV", of one step), and the leads of its columns."""

    rate: float | None = None
    units: str | None = None
    leads: Sequence[str] | None = None


def read(path: Path, stated: Stated | None = None) -> Found:
    """Reads one recording.

    Args:
      path: the file; of a WFDB record its header, its signals or its name without a suffix.
      stated: for CSV and NPY. Another format says all of it itself, and is refused if what is
        stated contradicts it.

    Raises:
      RecordError: no such file, no known format, a package that is missing, or anything that leaves
        the samples or their meaning in doubt.
    """
    stated = stated or Stated()
    kind, reader = _reader(path, stated)
    try:
        found = reader()
    except RecordError:
        raise
    except SourceError as error:
        raise RecordError(str(error)) from None
    except MemoryError:
        raise RecordError(f"{path}: larger than this machine's memory") from None
    except ModuleNotFoundError as error:
        raise RecordError(
            f"{path}: {kind} is read by the package {error.name}: pip install 'ecg-jax[formats]'"
        ) from None
    except OSError as error:
        raise RecordError(f"{path}: can't be read ({error.strerror or error})") from None
    if stated.rate is not None and stated.rate != found.rate:
        raise RecordError(f"{path}: states {found.rate:g} Hz itself, not {stated.rate:g} Hz")
    return found


def find(path: Path) -> Path:
    """The file of a recording; a WFDB record may be named without its suffix.

    Raises:
      RecordError: there is none, or it is a folder.
    """
    header = path.with_name(path.name + ".hea")
    try:
        if path.is_file():
            return path
        if header.is_file():
            return header
        kind = "a folder, not a recording" if path.is_dir() else f"no such file{capitals(path)}"
    except (OSError, ValueError):
        kind = "no such file"
    raise RecordError(f"{path}: {kind}")


def _reader(path: Path, stated: Stated) -> tuple[str, Callable[[], Found]]:
    """A format's name, and what reads the file."""
    path = find(path)
    header = path.with_suffix(".hea")
    if path.suffix.casefold() in (".hea", ".dat", ".mat") and header.is_file():
        return "WFDB", lambda: wfdb.read(header)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise RecordError(f"{path}: can't be read ({error.strerror})") from None
    if not head:
        raise RecordError(f"{path}: is empty")
    if head.startswith(b"\x93NUMPY"):
        return "NPY", lambda: arrays.read_npy(path, stated)
    if head.startswith((b"0       ", b"\xffBIOSEMI")):
        return "EDF", lambda: edf.read(path)
    if head[128:132] == b"DICM":
        return "DICOM", lambda: dicom.read(path)
    if head.startswith(b"ISHNE1.0"):
        return "ISHNE", lambda: vendors.read(path, "ISHNE")
    if kind := _xml(head):
        return kind, lambda: vendors.read(path, kind)
    if path.suffix.casefold() in TABLES:
        return "CSV", lambda: arrays.read_csv(path, stated)
    if vendors.is_scp(head):
        return "SCP-ECG", lambda: vendors.read(path, "SCP-ECG")
    if path.suffix.casefold() in (".dat", ".mat", ".hea"):
        raise RecordError(f"{path}: a WFDB record needs its header {header.name} beside it")
    raise RecordError(
        f"{path}: of no known format (WFDB, CSV, NPY, EDF, BDF, DICOM, GE MUSE XML, Philips Sierra "
        "XML, HL7 aECG, SCP-ECG, ISHNE)"
    )


def _xml(head: bytes) -> str:
    """Which XML format begins so; empty if none does."""
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = head.decode("utf-16" if wide else "utf-8-sig", errors="ignore").casefold()
    if not text.lstrip().startswith("<"):
        return ""
    return next((kind for tag, kind in _XML.items() if re.search(tag, text)), "")
