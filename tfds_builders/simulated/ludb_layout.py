"""Writes simulated records as the folder that LUDB is published in, its peculiarities included."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import wfdb

from tfds_builders.leads import LEADS
from tfds_builders.simulated.simulator import Simulated, simulate
from tfds_builders.simulated.wfdb_files import write_format_16, write_header, write_sha256

# Records of the test split (101, 115), of three folds of train and of validation (105): what they
# show, and what their headers say of it.
_RECORDS = {
    101: ({"SR"}, ["Rhythm: Sinus rhythm", "Electric axis of the heart: normal"]),
    102: ({"SBRAD", "LVH"}, ["Rhythm: Sinus bradycardia", "Left ventricular hypertrophy"]),
    103: ({"SR", "1AVB"}, ["Rhythm: Sinus rhythm", "I degree AV block"]),
    104: ({"AFIB"}, ["Rhythm: Atrial fibrillation", "Scar formation: septal"]),
    105: (
        {"SR", "PVC"},
        ["Rhythm: Sinus rhythm", "Ventricular extrasystole, type: single PVC"],
    ),
    115: ({"STACH"}, ["Rhythm: Sinus tachycardia", "Early repolarization syndrome"]),
}
_RATE, _SECONDS = 500, 10
_ANNOTATED = (1.0, 9.0)  # seconds between which LUDB has marks, more or less

Marks = list[tuple[int, str]]


def write_ludb(dest: Path, *, records: Sequence[int] = tuple(_RECORDS), seed: int = 0) -> None:
    """Writes `data/101.hea` and so on, an annotation file per lead, `RECORDS`, `SHA256SUMS.txt`.

    As published, a header gives each lead its span for a gain, only the middle of a record is
    marked, and here and there a QRS complex lacks its `(`.
    """
    folder = dest / "data"
    folder.mkdir(parents=True, exist_ok=True)
    for number in records:
        findings, statements = _RECORDS[number]
        rng = np.random.default_rng([seed, number])
        simulated = simulate(rng, findings=findings, rate_hz=_RATE, seconds=_SECONDS, noise=0.4)
        ecg = simulated.ecg_uv
        comments = [f"#<age>: {rng.integers(11, 91)}", f"#<sex>: {'MF'[number % 2]}"]
        comments += ["#<diagnoses>:", *(f"#{statement}. " for statement in statements)]
        path = folder / f"{number}.hea"
        names = [lead.casefold() for lead in LEADS]
        write_header(path, _RATE, ecg, names, ".dat 16 GAIN 0 0", signed_checksum=True)
        lines = path.read_text(encoding="utf-8").split("\n")
        spans = ecg.max(axis=0).astype(int) - ecg.min(axis=0)
        gains = [f"{span}({round(mean)})/mV" for span, mean in zip(spans, ecg.mean(0), strict=True)]
        lines[1:13] = [a.replace("GAIN", gain) for a, gain in zip(lines[1:13], gains, strict=True)]
        path.write_text("\n".join([*lines[:-1], *comments, ""]), encoding="utf-8", newline="\n")
        write_format_16(path.with_suffix(".dat"), ecg)
        for lead, name in enumerate(names):
            write_marks(folder / f"{number}.{name}", marks_of(simulated, lead))
    names = "".join(f"data/{number}\n" for number in records)
    (dest / "RECORDS").write_text(names, encoding="utf-8")
    write_sha256(dest)


def write_marks(path: Path, marks: Marks) -> None:
    """Writes a lead's annotation file. (wfdb writes none whose name ends in a digit.)"""
    sample, symbol = zip(*marks, strict=True)
    wfdb.wrann(path.stem, "x", np.array(sample), list(symbol), fs=_RATE, write_dir=str(path.parent))
    path.with_suffix(".x").rename(path)


def marks_of(simulated: Simulated, lead: int) -> Marks:
    """(sample, symbol) of a lead: the simulator's fiducials, of waves that end before the next
    begins. In V1 every fifth QRS complex has no `(`."""
    of = simulated.fiducials
    t_onset = np.maximum(of["t_end"] - (of["t_end"] - of["qrs_onset"]) / 2, of["qrs_offset"])
    marks: Marks = []
    for beat in range(len(of["r"])):
        if not _ANNOTATED[0] < of["qrs_onset"][beat] < _ANNOTATED[1] - 0.6:
            continue
        times = [
            ("p", of["p_onset"][beat], None, of["p_offset"][beat]),
            ("N", of["qrs_onset"][beat], of["r"][beat], of["qrs_offset"][beat]),
            ("t", t_onset[beat], None, of["t_end"][beat]),
        ]
        for symbol, onset, peak, offset in times:
            if np.isnan(onset):
                continue
            peak = (onset + offset) / 2 if peak is None else peak
            wave = [round(time * _RATE) for time in (onset, peak, offset)]
            wave[0] = max(wave[0], marks[-1][0] + 1 if marks else 0)
            if not wave[0] < wave[1] < wave[2]:
                continue
            three = list(zip(wave, ("(", symbol, ")"), strict=True))
            missing = symbol == "N" and LEADS[lead] == "V1" and beat % 5 == 2
            marks += three[missing:]
    return marks
