"""GE MUSE, Philips Sierra, HL7 aECG, SCP-ECG and ISHNE, by ecgdatakit.

Its warnings are errors here: a checksum that does not hold, leads left unscaled, a part that was
not read.
"""

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tfds_builders.errors import RecordError
from tfds_builders.formats.found import Found, checked, one_rate, plain_name
from tfds_builders.records import known_lead

XML_LIMIT = 64 * 2**20  # bytes; 12 leads of a minute in digits are a tenth of it
_INVALID = -(2**15)  # ISHNE's mark of a lead fault
_PULSE = 1000  # microvolts of a calibration pulse
_NAMES = {
    "GE MUSE XML": "GE MUSE",
    "Philips Sierra XML": "Philips Sierra",
    "HL7 aECG": "HL7 aECG",
    "SCP-ECG": "SCP-ECG",
    "ISHNE Holter": "ISHNE",
}


def is_scp(head: bytes) -> bool:
    """Whether a file begins as SCP-ECG does (EN 1064): a record's size, then section 0, whose first
    pointer is to itself."""
    if len(head) < 32:
        return False
    section, length = struct.unpack_from("<HI", head, 8)
    pointer, _, start = struct.unpack_from("<HII", head, 22)
    return section == 0 and length >= 26 and pointer == 0 and start == 7


def read(path: Path, kind: str) -> Found:
    """Reads the rhythm of a vendor's file; median beats are none.

    Raises:
      RecordError: the file is damaged, not what it looks like, or leaves something open.
    """
    import ecgdatakit

    if kind not in ("ISHNE", "SCP-ECG") and path.stat().st_size > XML_LIMIT:
        raise RecordError(f"{path}: an XML file of more than {XML_LIMIT >> 20} MB")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            record = ecgdatakit.FileParser.parse(path, units="uV")
        except ecgdatakit.ECGDataKitError as error:
            raise RecordError(f"{path}: {_without(path, error)}") from None
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # what a damaged file makes it stumble over
            raise RecordError(f"{path}: damaged, or not {kind} ({_without(path, error)})") from None
    if caught:
        raise RecordError(f"{path}: {_without(path, caught[0].message)}")
    if _NAMES.get(record.file_format.name) != kind:
        raise RecordError(f"{path}: looks like {kind}, is read as {record.file_format.name}")
    return checked(_found(path, record, kind), path)


def _without(path: Path, error: Any) -> str:
    text = " ".join(str(error).split())
    for name in (str(path), path.name):
        text = text.replace(f" in {name}", "").replace(f" of {name}", "").replace(f"{name}: ", "")
    return text


def _found(path: Path, record: Any, kind: str) -> Found:
    leads = [lead for lead in record.leads if known_lead(plain_name(lead.label))]
    other = [lead.label for lead in record.leads if not known_lead(plain_name(lead.label))]
    if not leads:
        raise RecordError(f"{path}: no standard lead: it has {', '.join(other) or 'none'}")
    for lead in leads:
        if lead.units != "uV" or lead.is_raw:
            raise RecordError(f"{path}: lead {lead.label} is not calibrated in volts")
        if {"start_sample", "LeadTimeOffset"} & lead.annotations.keys():
            raise RecordError(f"{path}: lead {lead.label} was not recorded with the others")
    one_rate([x.sampling_rate for x in leads], [len(x.samples) for x in leads], path)
    microvolts = np.stack([lead.samples for lead in leads], axis=1).astype(np.float64)
    steps = np.array([lead.resolution if lead.resolution else 0.0 for lead in leads])
    notes = [f"no standard leads, left out: {', '.join(other)}"] if other else []
    off = ["LeadOff" in lead.annotations for lead in leads]
    if any(off):  # a constant, which is taken for a lead that is missing
        microvolts[:, off] = 0
        notes.append(
            f"marked as off: {', '.join(x.label for x, o in zip(leads, off, strict=True) if o)}"
        )
    end = len(microvolts)
    if kind == "ISHNE":
        if (microvolts == _INVALID * steps).any():
            raise RecordError(f"{path}: holds samples that are marked as a lead's fault")
        declared = record.raw_metadata.get("ecg_size")
        if isinstance(declared, int) and declared > end:
            notes.append(f"the header says {declared} samples, there are {end}")
    if kind == "Philips Sierra":
        end = _before_pulse(microvolts)
        if end < len(microvolts):
            at = end / leads[0].sampling_rate
            notes.append(f"a calibration pulse from {at:.1f} s on, which is no ECG")
    if record.median_beats:
        notes.append("a median beat, left out")
    said = record.interpretation.statements
    return Found(
        microvolts,
        tuple(plain_name(lead.label) for lead in leads),
        float(leads[0].sampling_rate),
        kind,
        resolution=float(steps.max()),
        notes=tuple(notes),
        statements=tuple(" ".join(filter(None, (a.strip(), b.strip()))) for a, b in said),
        ecg_samples=end,
    )


def _before_pulse(microvolts: np.ndarray) -> int:
    """Samples before the calibration pulse that ends a file: all leads are the same there, zero or
    1 mV."""
    same = (microvolts == microvolts[:, :1]).all(axis=1)
    same &= np.isin(microvolts[:, 0], (0, _PULSE))
    different = np.flatnonzero(~same)
    end = int(different[-1]) + 1 if len(different) else 0
    return end if (microvolts[end:, 0] == _PULSE).any() else len(microvolts)
