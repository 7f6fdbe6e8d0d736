"""LUDB: a record's samples, its statements, and the waves of each lead."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tfds_builders.annotations import read_annotations
from tfds_builders.build import multi_hot
from tfds_builders.errors import RecordError
from tfds_builders.files import verify_sha256
from tfds_builders.header import Header, read_header
from tfds_builders.leads import LEADS
from tfds_builders.ludb import waves
from tfds_builders.records import Recording, to_recording
from tfds_builders.samples import read_samples

FS = 500  # Hz
SECONDS = 10
RECORDS = 200
EXTENSIONS = tuple(lead.casefold() for lead in LEADS)  # of the annotation file of each lead

# The 41 records that openecg (vitaldb/openecg, data/splits/ludb_v1.json) holds out, and its
# published figures are of; and five folds of the others, dealt rhythm by rhythm.
_HELD_OUT = """
    10 11 14 20 21 22 28 33 34 35 39 47 48 53 55 56 66 67 70 72 73 74 78 91 92 93 95 101 115 119 120
    133 135 154 174 178 179 189 191 194 196
"""
_FOLDS = (
    """2 6 9 18 29 38 40 41 49 52 61 69 80 87 96 98 106 118 125 126 138 143 149 155 160 163 168 173
    180 184 186 195""",
    """3 12 13 19 31 42 44 50 54 62 63 75 81 89 100 103 107 109 121 127 130 139 144 150 157 164 169
    171 181 187 197 198""",
    """4 15 23 24 32 43 51 57 59 64 76 84 90 99 102 108 110 111 114 122 128 131 140 145 151 159 165
    170 175 182 190 199""",
    """5 16 25 27 36 45 58 65 71 77 83 85 94 104 112 113 117 123 132 134 136 141 147 152 156 161 166
    172 176 183 192 200""",
    """1 7 8 17 26 30 37 46 60 68 79 82 86 88 97 105 116 124 129 137 142 146 148 153 158 162 167 177
    185 188 193""",
)
TEST_FOLD = len(_FOLDS) + 1
FOLD = {
    int(number): fold
    for fold, numbers in enumerate((*_FOLDS, _HELD_OUT), start=1)
    for number in numbers.split()
}
SPLIT_OF_FOLD = {**dict.fromkeys(range(1, 5), "train"), 5: "validation", TEST_FOLD: "test"}

# LUDB's rhythms and those of its diagnoses that SCP-ECG has a statement for, as PTB-XL uses it.
RHYTHMS = {
    "Sinus rhythm": "SR",
    "Sinus bradycardia": "SBRAD",
    "Sinus tachycardia": "STACH",
    "Sinus arrhythmia": "SARRH",
    "Irregular sinus rhythm": "SARRH",
    "Atrial fibrillation": "AFIB",
    "Atrial flutter, typical": "AFLT",
}
_DIAGNOSES = {
    "I degree AV block": "1AVB",
    "III degree AV-block": "3AVB",
    "Incomplete right bundle branch block": "IRBBB",
    "Complete right bundle branch block": "CRBBB",
    "Incomplete left bundle branch block": "ILBBB",
    "Complete left bundle branch block": "CLBBB",
    "Left anterior hemiblock": "LAFB",
    "Non-specific intravintricular conduction delay": "IVCD",
    "Left ventricular hypertrophy": "LVH",
    "Right ventricular hypertrophy": "RVH",
    "Left atrial hypertrophy": "LAO/LAE",
    "Left atrial overload": "LAO/LAE",
    "Right atrial hypertrophy": "RAO/RAE",
    "Right atrial overload": "RAO/RAE",
    "UNIpolar atrial pacing": "PACE",
    "UNIpolar ventricular pacing": "PACE",
    "BIpolar ventricular pacing": "PACE",
    "Biventricular pacing": "PACE",
    "P-synchrony": "PACE",
}
_BEGINNINGS = {"Atrial extrasystole": "PAC", "Ventricular extrasystole": "PVC"}
# Statements that none of these classes is made of; they stand in the report.
_OTHERS = (
    *("Electric axis of the heart", "Left ventricular overload", "Aberrant conduction"),
    *("Sinoatrial blockade", "Wandering atrial pacemaker", "Ischemia", "STEMI", "Scar formation"),
    *("Undefined ischemia/scar/supp.NSTEMI", "Non-specific repolarization abnormalities"),
    "Early repolarization syndrome",
)
CLASSES = {
    "rhythm": tuple(dict.fromkeys(RHYTHMS.values())),
    "diagnosis": tuple(dict.fromkeys([*_DIAGNOSES.values(), *_BEGINNINGS.values()])),
}


def example(stem: Path, rate: int, sha256: Mapping[str, str]) -> list[dict]:
    """The record's one example; raises RecordError."""
    header, recording = _read(stem, rate, sha256)
    age, sex, rhythm, statements = parse_comments(header.comments, f"{stem}.hea")
    marks = {
        extension: [(mark.sample, mark.symbol) for mark in read_annotations(stem, extension, FS)]
        for extension in EXTENSIONS
    }
    segments, known = [], []
    for extension, of_lead in marks.items():
        where = stem.with_name(f"{stem.name}.{extension}")
        marked = waves.pair(of_lead, SECONDS * FS, where)
        of_samples = waves.segments(marked, of_lead, SECONDS * FS, FS // rate)
        for found, column in zip((segments, known), of_samples, strict=True):
            found.append(column)
    codes = {_code(statement) for statement in statements}
    symbols = [symbol for of_lead in marks.values() for _, symbol in of_lead]
    return [
        {
            "ecg": recording.ecg,
            "lead_mask": recording.lead_mask,
            "record_id": stem.name,
            "patient_id": stem.name,  # one record of each
            "report": ". ".join([rhythm, *statements]) + ".",
            "fold": FOLD[int(stem.name)],
            "labels": {
                "rhythm": multi_hot({RHYTHMS[rhythm]}, CLASSES["rhythm"]),
                "diagnosis": multi_hot(codes, CLASSES["diagnosis"]),
            },
            "age": np.float32(age),
            "sex": np.int32(sex),
            "segments": np.stack(segments, axis=1),
            "segments_mask": np.stack(known, axis=1),
            "peaks": np.array([symbols.count(peak) for peak in waves.PEAKS], np.int32),
        }
    ]


def _read(stem: Path, rate: int, sha256: Mapping[str, str]) -> tuple[Header, Recording]:
    """The samples are microvolts as they are: see `_check_gain`."""
    path = stem.with_name(stem.name + ".hea")
    for name, digest in sha256.items():
        verify_sha256(stem.with_name(name), digest)
    header = read_header(path)
    if header.rate != FS:
        raise RecordError(f"{path}: states {header.rate:g} Hz, the dataset is published at {FS} Hz")
    samples = read_samples(header, path)
    if len(samples) != SECONDS * FS:
        raise RecordError(f"{path}: {len(samples) / FS:g} s long, not {SECONDS} s")
    _check_gain(header, samples, path)
    names = [signal.name for signal in header.signals]
    return header, to_recording(samples, names, FS, rate, path, LEADS)


def _check_gain(header: Header, samples: np.ndarray, path: Path) -> None:
    """Raises RecordError where a gain is another than LUDB's headers give.

    They give each lead its own span in samples as its gain, so that every lead would span 1 mV, and
    leads I, II and III would contradict each other in 195 of 200 records. Taken as microvolts the
    samples fit Einthoven's and Goldberger's equations in every record.
    """
    spans = samples.max(axis=0).astype(int) - samples.min(axis=0)
    for signal, span in zip(header.signals, spans.tolist(), strict=True):
        if span and (signal.gain != span or signal.unit.casefold() != "mv"):
            raise RecordError(
                f"{path}: lead {signal.name} has {signal.gain:g} units per {signal.unit}, and LUDB "
                f"gives a lead's span for it, {span} per mV: is the gain or its unit wrong?"
            )


def parse_comments(comments: Sequence[str], where: Path | str) -> tuple[int, int, str, list[str]]:
    """Age in years, sex (0 male, 1 female), rhythm and other statements; raises RecordError.

    LUDB's own lines have no space after their #; others are remarks.
    """
    lines = [line[1:].strip() for line in comments if not line.startswith("# ")]
    fields = {}
    for name, pattern in (("age", r"\d{1,3}"), ("sex", "[MF]"), ("diagnoses", "")):
        values = [line.partition(":")[2].strip() for line in lines if line.startswith(f"<{name}>")]
        if len(values) != 1 or not re.fullmatch(pattern, values[0]):
            raise RecordError(f"{where}: <{name}> is {', '.join(values)[:60] or 'missing'!r}")
        fields[name] = values[0]
    statements = [line.removesuffix(".") for line in lines if line and not line.startswith("<")]
    rhythms = [s.removeprefix("Rhythm: ") for s in statements if s.startswith("Rhythm: ")]
    if len(rhythms) != 1 or rhythms[0] not in RHYTHMS:
        raise RecordError(f"{where}: rhythm is {', '.join(rhythms)[:60] or 'missing'!r}")
    others = [s for s in statements if not s.startswith("Rhythm: ")]
    for statement in others:
        if not _code(statement) and not statement.startswith(_OTHERS):
            raise RecordError(f"{where}: unknown statement {statement[:60]!r}")
    return int(fields["age"]), int(fields["sex"] == "F"), rhythms[0], others


def _code(statement: str) -> str:
    """The class that a statement counts for, or nothing."""
    beginning = statement.partition(",")[0].partition(":")[0]
    return _DIAGNOSES.get(statement) or _BEGINNINGS.get(beginning, "")
