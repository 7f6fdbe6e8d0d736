"""What was found in a file, before it is brought to a rate and an order of leads."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfds_builders.errors import RecordError

MICROVOLTS = {"mv": 1e3, "uv": 1.0, "µv": 1.0, "μv": 1.0, "v": 1e6, "nv": 1e-3}
_STEP = re.compile(r"(?:(\d+(?:\.\d*)?(?:e-?\d+)?)\s*)?([A-Za-zµμ]+)")
_PREFIX = re.compile(r"(?:mdc_)?(?:ecg|ekg|lead)[\s_:.-]+", re.IGNORECASE)


class Found(NamedTuple):
    """A recording as its file has it.

    Attributes:
      microvolts: float64 [T, n].
      names: n, as the file or its reader calls the leads; the same may not be there twice.
      rate: Hz.
      format: such as "GE MUSE".
      resolution: microvolts of the coarsest lead's step, 0 where it is not known.
      notes: what a reader of figures should know, a sentence each.
      statements: what the file says of the ECG in words (a machine's or a reader's), in its order.
      ecg_samples: how many samples from the start are of the patient; after them stands a
        calibration pulse, as Philips' files end with.
    """

    microvolts: np.ndarray
    names: tuple[str, ...]
    rate: float
    format: str
    resolution: float = 0.0
    notes: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    ecg_samples: int = 0


def per_microvolt(units: str, where: Path) -> float:
    """Microvolts of one step in `units`: "mV", "uV", "V", "nV", or a number of one of them.

    Raises:
      RecordError: any other unit.
    """
    match = _STEP.fullmatch(units.strip())
    factor = MICROVOLTS.get(match[2].casefold()) if match else None
    if match is None or factor is None or (match[1] and float(match[1]) == 0):
        raise RecordError(
            f"{where}: unit {units[:40]!r}: name uV, mV or V, or the size of one step, '4.88 uV'"
        )
    return factor * float(match[1] or 1)


def plain_name(name: str) -> str:
    """A lead's name without what formats put before it: `ECG II`, `Lead V1`, `MDC_ECG_LEAD_aVR`."""
    name = " ".join(name.split())
    while shorter := _PREFIX.match(name):
        name = name[shorter.end() :]
    return name


def checked(found: Found, where: Path) -> Found:
    """Raises RecordError for samples, a rate or leads that no recording has."""
    x = found.microvolts
    if x.ndim != 2 or not x.size or x.shape[1] != len(found.names):
        raise RecordError(f"{where}: {x.shape} samples of {len(found.names)} leads: no recording")
    if not 0 < found.rate < 1e6:
        raise RecordError(f"{where}: sampling rate of {found.rate:g} Hz")
    if not np.isfinite(x).all():
        bad = [n for n, ok in zip(found.names, np.isfinite(x).all(axis=0), strict=True) if not ok]
        raise RecordError(f"{where}: lead {', '.join(bad)} holds samples that are not numbers")
    return found._replace(ecg_samples=found.ecg_samples or len(x))


def one_rate(rates: Sequence[float], lengths: Sequence[int], where: Path) -> None:
    """Raises RecordError where leads differ in rate or length."""
    if len(set(rates)) > 1:
        raise RecordError(f"{where}: leads of {', '.join(f'{r:g}' for r in sorted(set(rates)))} Hz")
    if len(set(lengths)) > 1:
        raise RecordError(
            f"{where}: leads of {', '.join(map(str, sorted(set(lengths))))} samples: not recorded "
            "at the same time, or cut short"
        )
