"""WFDB records, with the strict reader of the published datasets."""

from pathlib import Path

import numpy as np

from tfds_builders.errors import RecordError
from tfds_builders.formats.found import MICROVOLTS, Found, checked
from tfds_builders.header import read_header
from tfds_builders.samples import read_samples


def read(path: Path) -> Found:
    """Reads the record whose header is at `path`; signals that are no voltages are left out."""
    header = read_header(path)
    samples = read_samples(header, path)
    volts = [i for i, s in enumerate(header.signals) if s.unit.casefold() in MICROVOLTS]
    other = [f"{s.name} ({s.unit})" for i, s in enumerate(header.signals) if i not in volts]
    if not volts:
        raise RecordError(f"{path}: no signal in mV or uV: it has {', '.join(other)}")
    signals = [header.signals[i] for i in volts]
    step = np.array([MICROVOLTS[s.unit.casefold()] / s.gain for s in signals])
    baseline = np.array([s.baseline for s in signals])
    return checked(
        Found(
            (samples[:, volts].astype(np.float64) - baseline) * step,
            tuple(s.name for s in signals),
            header.rate,
            "WFDB",
            resolution=float(step.max()),
            notes=(f"no voltages, left out: {', '.join(other)}",) if other else (),
        ),
        path,
    )
