"""DICOM waveforms (PS3.3 A.34), by pydicom: 12-lead, general and ambulatory ECG."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tfds_builders.errors import RecordError
from tfds_builders.formats.found import MICROVOLTS, Found, checked, plain_name
from tfds_builders.records import known_lead

# Channel sources of the schemes SCPECG (5.6.3-9-N) and MDC (2:N), PS3.16 CID 3001.
_LEAD_OF_CODE = {
    **{1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF"},
    **{2 + n: f"V{n}" for n in range(1, 7)},
}
_CODE = re.compile(r"(?:5\.6\.3-9-|2:)(\d{1,3})")
_MEANING = re.compile(r"\b(aV[RLF]|V[1-6]|I{1,3})\b", re.IGNORECASE)


def read(path: Path) -> Found:
    """Reads the rhythm: the group of leads that is no median beat, and that is the longest."""
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dataset = pydicom.dcmread(path)
            groups = list(dataset.get("WaveformSequence") or ())
            rhythms = [i for i, g in enumerate(groups) if not _is_median(g)]
            if not rhythms:
                raise RecordError(f"{path}: a DICOM file without a waveform (no ECG)")
            found = _group(dataset, _longest(groups, rhythms, path), path)
    except (RecordError, ModuleNotFoundError, MemoryError):
        raise
    except Exception as error:  # pydicom raises what its parts raise
        raise RecordError(f"{path}: damaged, or not a DICOM waveform ({error})") from None
    left = len(groups) - len(rhythms)
    notes = ("a median beat, left out",) if left else ()
    return checked(found._replace(notes=(*notes, *found.notes)), path)


def _is_median(group: Any) -> bool:
    label = str(group.get("MultiplexGroupLabel", "")).upper()
    return group.get("WaveformOriginality") == "DERIVED" or "MEDIAN" in label or "BEAT" in label


def _longest(groups: list[Any], rhythms: list[int], path: Path) -> int:
    """Raises RecordError where two are as long: a page printed in parts is no recording."""
    seconds = {
        i: groups[i].NumberOfWaveformSamples / float(groups[i].SamplingFrequency) for i in rhythms
    }
    best = max(rhythms, key=seconds.__getitem__)
    if sum(value == seconds[best] for value in seconds.values()) > 1:
        raise RecordError(f"{path}: {len(rhythms)} groups of leads of one length, which are apart")
    return best


def _group(dataset: Any, index: int, path: Path) -> Found:
    from pydicom.waveforms import multiplex_array

    group = dataset.WaveformSequence[index]
    channels = group.ChannelDefinitionSequence
    raw = multiplex_array(dataset, index, as_raw=True)
    if (padding := group.get("WaveformPaddingValue")) is not None:
        value = np.frombuffer(bytes(padding), raw.dtype)[0] if len(padding) else None
        if value is not None and (raw == value).any():
            raise RecordError(f"{path}: holds samples that are marked as padding")
    scaled = multiplex_array(dataset, index, as_raw=False)
    names, columns, steps, other = [], [], [], []
    for i, channel in enumerate(channels):
        name = _name(channel)
        if not known_lead(name):
            other.append(name)
            continue
        if float(channel.get("ChannelSampleSkew", 0) or 0) or channel.get("ChannelTimeSkew", 0):
            raise RecordError(f"{path}: lead {name} is skewed against the others")
        if "ChannelSensitivity" not in channel:
            raise RecordError(f"{path}: lead {name} is not calibrated")
        unit = str(channel.ChannelSensitivityUnitsSequence[0].CodeValue)
        if unit.casefold() not in MICROVOLTS:
            raise RecordError(f"{path}: lead {name} in {unit!r}, not uV or mV")
        factor = MICROVOLTS[unit.casefold()]
        names.append(name)
        columns.append(scaled[:, i] * factor)
        correction = float(channel.get("ChannelSensitivityCorrectionFactor", 1))
        steps.append(abs(factor * float(channel.ChannelSensitivity) * correction))
    if not names:
        raise RecordError(f"{path}: no channel is a standard lead: it has {', '.join(other)}")
    return Found(
        np.stack(columns, axis=1).astype(np.float64),
        tuple(names),
        float(group.SamplingFrequency),
        "DICOM",
        resolution=max(steps),
        notes=(f"no standard leads, left out: {', '.join(other)}",) if other else (),
        statements=_statements(dataset),
    )


def _name(channel: Any) -> str:
    source = channel.ChannelSourceSequence[0]
    if match := _CODE.fullmatch(str(source.get("CodeValue", ""))):
        return _LEAD_OF_CODE.get(int(match[1]), str(source.get("CodeMeaning", match[0])))
    meaning = str(source.get("CodeMeaning", "") or channel.get("ChannelLabel", ""))
    match = _MEANING.search(meaning)
    return match[1] if match else plain_name(meaning) or "a channel without a name"


def _statements(dataset: Any) -> tuple[str, ...]:
    texts = (a.get("UnformattedTextValue") for a in dataset.get("WaveformAnnotationSequence") or ())
    return tuple(" ".join(str(text).split()) for text in texts if text)
