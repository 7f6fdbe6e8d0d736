"""EDF, EDF+ and BDF (https://www.edfplus.info/specs/), by pyedflib."""

from pathlib import Path

import numpy as np

from tfds_builders.errors import RecordError
from tfds_builders.formats.found import MICROVOLTS, Found, checked, one_rate, plain_name
from tfds_builders.records import known_lead

_EDF = (0, 1)  # pyedflib's numbers of EDF and EDF+


def read(path: Path) -> Found:
    """Reads the signals that are ECG leads; others are left out and noted."""
    import pyedflib

    _check_size(path)
    try:
        file = pyedflib.EdfReader(str(path))
    except (OSError, ValueError) as error:
        why = str(error).replace(f"{path}: ", "")
        raise RecordError(f"{path}: not a whole EDF or BDF file ({why})") from None
    try:
        headers = file.getSignalHeaders()
        lengths = file.getNSamples()
        leads = [i for i, h in enumerate(headers) if known_lead(plain_name(h["label"]))]
        other = [h["label"].strip() for i, h in enumerate(headers) if i not in leads]
        if not leads:
            raise RecordError(f"{path}: no signal is a standard lead: it has {', '.join(other)}")
        rates = [headers[i]["sample_frequency"] for i in leads]
        one_rate(rates, [int(lengths[i]) for i in leads], path)
        columns, steps = [], []
        for i in leads:
            header = headers[i]
            factor = MICROVOLTS.get(header["dimension"].strip().casefold())
            if factor is None:
                raise RecordError(
                    f"{path}: lead {header['label'].strip()} in {header['dimension']!r}, not uV, mV"
                )
            digital = header["digital_max"] - header["digital_min"]
            steps.append(factor * (header["physical_max"] - header["physical_min"]) / digital)
            columns.append(file.readSignal(i) * factor)
    finally:
        file.close()
    found = Found(
        np.stack(columns, axis=1),
        tuple(plain_name(headers[i]["label"]) for i in leads),
        float(rates[0]),
        "EDF" if file.filetype in _EDF else "BDF",
        resolution=float(np.abs(steps).max()),
        notes=(f"no standard leads, left out: {', '.join(other)}",) if other else (),
    )
    return checked(found, path)


def _check_size(path: Path) -> None:
    """Raises RecordError where the file is not as long as its header says."""
    with path.open("rb") as file:
        head = file.read(256)
        try:
            size, records, signals = (
                int(head[a:b]) for a, b in ((184, 192), (236, 244), (252, 256))
            )
            file.seek(256 + 216 * signals)
            per_record = sum(int(file.read(8)) for _ in range(signals))
        except ValueError:
            raise RecordError(f"{path}: its EDF header is damaged") from None
    expected = size + records * per_record * (3 if head[:1] == b"\xff" else 2)
    if (actual := path.stat().st_size) != expected:
        raise RecordError(f"{path}: {actual} bytes, its header says {expected}: cut short?")
