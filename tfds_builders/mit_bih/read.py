"""MIT-BIH: beats and rhythms of a record, cut into windows of 10 s."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfds_builders import annotations
from tfds_builders.errors import RecordError
from tfds_builders.records import read_wfdb

FS = 360  # Hz
SECONDS = 10
LEADS_PER_RECORD = 2

# AAMI EC57 classes of the annotated beats. Paced and fusion-of-paced beats are Q.
AAMI_CLASSES = ("N", "S", "V", "F", "Q")
AAMI_OF_BEAT = {
    **dict.fromkeys("NLRej", "N"),
    **dict.fromkeys("AaJS", "S"),
    **dict.fromkeys("VE", "V"),
    "F": "F",
    **dict.fromkeys("/fQ", "Q"),
}
BEAT_SYMBOLS = tuple(AAMI_OF_BEAT)
# Beats that WFDB can annotate and this database never does: refused rather than dropped.
_OTHER_BEATS = set("BnrE?@") - set(BEAT_SYMBOLS)

RHYTHMS = {
    "NSR": "normal sinus rhythm",  # published as "(N", which would be mistaken for AAMI's N
    "AB": "atrial bigeminy",
    "AFIB": "atrial fibrillation",
    "AFL": "atrial flutter",
    "B": "ventricular bigeminy",
    "BII": "second-degree heart block",
    "IVR": "idioventricular rhythm",
    "NOD": "nodal (AV junctional) rhythm",
    "P": "paced rhythm",
    "PREX": "pre-excitation (WPW)",
    "SBR": "sinus bradycardia",
    "SVTA": "supraventricular tachyarrhythmia",
    "T": "ventricular trigeminy",
    "VFL": "ventricular flutter",
    "VT": "ventricular tachycardia",
}


class Annotations(NamedTuple):
    """beats: (sample, symbol); rhythms: (sample from which it is in force, code); at 360 Hz."""

    beats: list[tuple[int, str]]
    rhythms: list[tuple[int, str]]


def read_annotations(stem: Path) -> Annotations:
    """Reads `stem`.atr; raises RecordError."""
    path = stem.with_name(stem.name + ".atr")
    beats, rhythms = [], []
    for sample, symbol, note in annotations.read_annotations(stem, "atr", FS):
        if symbol in AAMI_OF_BEAT:
            beats.append((sample, symbol))
        elif symbol in _OTHER_BEATS:
            raise RecordError(f"{path}: beat {symbol!r} at sample {sample} has no AAMI class here")
        elif symbol == "+":
            rhythms.append((sample, _rhythm(note, path)))
    if not beats:
        raise RecordError(f"{path}: annotates no beats")
    return Annotations(beats, rhythms)


def _rhythm(note: str, path: Path) -> str:
    code = note.strip("\x00 ").removeprefix("(")
    code = "NSR" if code == "N" else code
    if code not in RHYTHMS:
        raise RecordError(f"{path}: unknown rhythm {note!r}")
    return code


def examples(
    stem: Path, patient_id: str, fold: int, rate: int, sha256: Mapping[str, str]
) -> list[dict]:
    """The record's windows; raises RecordError.

    The whole record is resampled before it is cut, so that windows have no filter edges. The
    last window is as long as what is left.
    """
    ecg, lead_mask = read_wfdb(stem, rate, sha256=sha256, published_rate=FS)
    if (count := int(lead_mask.sum())) != LEADS_PER_RECORD:
        raise RecordError(f"{stem}.hea: {count} leads, the records of MIT-BIH have two")
    beats, rhythms = read_annotations(stem)
    length = len(ecg) * FS / rate
    for what, samples in (("beats", beats), ("rhythms", rhythms)):
        if samples and not 0 <= min(samples)[0] <= max(samples)[0] < length:
            raise RecordError(f"{stem}.atr: annotates {what} outside the {length:.0f} samples")
    return [
        {
            "ecg": window,
            "lead_mask": lead_mask,
            "record_id": f"{stem.name}_{index:03d}",
            "patient_id": patient_id,
            "report": "",
            "fold": fold,
            **_labels(beats, rhythms, index, len(window), rate),
        }
        for index, window in enumerate(
            ecg[start : start + SECONDS * rate] for start in range(0, len(ecg), SECONDS * rate)
        )
    ]


def _labels(
    beats: list[tuple[int, str]],
    rhythms: list[tuple[int, str]],
    index: int,
    num_samples: int,
    rate: int,
) -> dict:
    """What is annotated in window `index`, beats at their sample of the output rate."""
    start, stop = index * SECONDS * FS, (index + 1) * SECONDS * FS
    inside = [(sample - start, symbol) for sample, symbol in beats if start <= sample < stop]
    ends = [sample for sample, _ in rhythms[1:]] + [stop]
    in_force = {
        code
        for (begin, code), end in zip(rhythms, ends, strict=False)
        if begin < stop and end > start
    }
    aami = {AAMI_OF_BEAT[symbol] for _, symbol in inside}
    # The nearest sample, but none beyond the window: 3599 at 360 Hz is 999.7 at 100 Hz.
    position = [min(round(sample * rate / FS), num_samples - 1) for sample, _ in inside]
    return {
        "labels": {
            "aami": np.array([name in aami for name in AAMI_CLASSES], np.uint8),
            "rhythm": np.array([code in in_force for code in RHYTHMS], np.uint8),
        },
        "beat_sample": np.array(position, np.int32),
        "beat_symbol": np.array([BEAT_SYMBOLS.index(s) for _, s in inside], np.uint8),
    }
