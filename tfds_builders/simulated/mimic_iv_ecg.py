"""Writes simulated records as MIMIC-IV-ECG is published, with what its readers fall into.

aVF stands before aVL; a step is 5 uV; samples are missing in some leads; empty cells stand between
the lines of a report; some lines are no findings; 29,999 stands for what was not measured.
"""

import csv
import datetime
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tfds_builders.leads import LEADS
from tfds_builders.simulated import heart
from tfds_builders.simulated.cases import Case, draw_cases
from tfds_builders.simulated.findings import draw_findings
from tfds_builders.simulated.simulator import simulate
from tfds_builders.simulated.wfdb_files import write_format_16, write_header, write_sha256

ORDER = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
MISSING = -32_768
NOT_MEASURED = 29_999
UV_PER_STEP = 5

# The machine's words for each finding, the first of which is the commonest.
_WORDS = {
    "SR": ("Sinus rhythm",),
    "SBRAD": ("Sinus bradycardia",),
    "STACH": ("Sinus tachycardia",),
    "AFIB": ("Atrial fibrillation", "Atrial fibrillation with rapid ventricular response"),
    "PAC": ("Atrial premature complexes", "PAC(s)"),
    "PVC": ("Ventricular premature complexes", "PVC(s)"),
    "1AVB": ("1st degree A-V block", "First degree A-V block"),
    "CLBBB": ("Left bundle branch block",),
    "CRBBB": ("Right bundle branch block", "RBBB"),
    "STE_": ("Anterior ST elevation",),
    "STD_": ("Lateral ST depression", "Minimal ST depression, lateral leads"),
    "INVT": ("Lateral T wave inversion",),
    "LVH": ("Left ventricular hypertrophy", "Probable left ventricular hypertrophy"),
    "IMI": ("Inferior infarct - age undetermined", "Possible inferior infarct - age undetermined"),
    "ASMI": ("Anteroseptal infarct - age undetermined",),
    "NORM": ("Normal ECG",),
}
_NOTICES = (
    "--- Warning: Data quality may affect interpretation ---",
    "Uncertain rhythm: review",
    "--- Suspect arm lead reversal - only aVF, V1-V6 analyzed ---",
    "Poor quality data, interpretation may be affected",
)
_MEASUREMENTS = (
    *("rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end"),
    *("p_axis", "qrs_axis", "t_axis"),
)
RECORD_COLUMNS = ("subject_id", "study_id", "file_name", "ecg_time", "path")
MACHINE_COLUMNS = (
    *("subject_id", "study_id", "cart_id", "ecg_time"),
    *(f"report_{i}" for i in range(18)),
    *("bandwidth", "filtering", *_MEASUREMENTS),
)
KINDS = 12  # of what may be missing or be noticed, in turn: see `_damage` and `_lines`


def write_mimic_iv_ecg(
    dest: Path,
    *,
    records: int = 24,
    seed: int = 0,
    gaps: bool = True,
    split: Callable[[int], str] | None = None,
) -> None:
    """Writes both tables, `RECORDS`, `files/` and `SHA256SUMS.txt`.

    Of every `KINDS` records one has short gaps, one lacks whole leads, one has a report without a
    finding, two have notices among their findings (none of it without `gaps`). `split` gives the
    split of a subject's number: then of six patients one validates and one tests, since 1 % of few
    are none.
    """
    rows, machine = [], []
    for case in draw_cases(records, seed):
        subject, study = _subject(case.patient, split), 40_000_000 + 1_009 * case.record
        time = datetime.datetime(2180, 7, 23, 8, 44) + datetime.timedelta(hours=31 * case.record)
        stem = f"files/p{subject // 10_000}/p{subject}/s{study}/{study}"
        ids = {"subject_id": subject, "study_id": study, "ecg_time": time}
        lines = _write_record(dest / stem, case, subject, time, gaps)
        rows.append(ids | {"file_name": study, "path": stem})
        machine.append(ids | _machine(case, lines))
    _write(dest / "record_list.csv", RECORD_COLUMNS, rows)
    _write(dest / "machine_measurements.csv", MACHINE_COLUMNS, machine)
    folders = sorted({f"{Path(row['path']).parents[2]}/\n" for row in rows})
    (dest / "RECORDS").write_text("".join(folders), encoding="utf-8")
    write_sha256(dest)


def _subject(patient: int, split: Callable[[int], str] | None) -> int:
    numbers: Iterator[int] = iter(range(10_000_000 + 5_000 * patient, 10**8))
    if split is None:
        return next(numbers)
    wanted = {4: "validation", 5: "test"}.get(patient % 6, "train")
    return next(number for number in numbers if split(number) == wanted)


def findings_of(case: Case) -> tuple[heart.Patient, frozenset[str]]:
    """A case's heart, and what all of its patient's records show."""
    rng = np.random.default_rng([case.seed, 1, case.patient])
    return heart.draw_patient(rng), draw_findings(rng)


def _write_record(stem: Path, case: Case, subject: int, time, gaps: bool) -> list[str]:
    patient, findings = findings_of(case)
    rng = np.random.default_rng([case.seed, 2, case.record])
    ecg = simulate(rng, findings=findings, patient=patient).ecg_uv
    ecg = ecg[:, [LEADS.index(lead) for lead in ORDER]]
    samples = np.clip(np.rint(ecg / UV_PER_STEP), -32_767, 32_767).astype(np.int16)
    if gaps:
        _damage(samples, case.record % KINDS)
    stem.parent.mkdir(parents=True, exist_ok=True)
    path = stem.with_name(stem.name + ".hea")
    start = f" {time:%H:%M:%S} {time:%d/%m/%Y}"
    comments = [f"# <subject_id>: {subject}"]
    line = ".dat 16 200.0(0)/mV 16 0"
    write_header(
        path, 500, samples, ORDER, line, signed_checksum=False, start=start, comments=comments
    )
    write_format_16(path.with_suffix(".dat"), samples)
    return _lines(rng, findings, case.record % KINDS if gaps else 0)


def _damage(samples: np.ndarray, kind: int) -> None:
    """Short gaps in all leads at once and in V3; whole leads missing, and most of one."""
    if kind == 3:
        samples[1000:1040] = MISSING
        samples[:25, ORDER.index("V3")] = MISSING
    elif kind == 6:
        samples[:, [ORDER.index("aVL"), ORDER.index("V6")]] = MISSING
        samples[500:2000, ORDER.index("V1")] = MISSING


def _lines(rng: np.random.Generator, findings, kind: int) -> list[str]:
    """Cells of a report, empty ones among them."""
    lines = [str(rng.choice(words)) for code, words in _WORDS.items() if code in findings]
    lines.append("" if "NORM" in findings else str(rng.choice(("Abnormal ECG", "Borderline ECG"))))
    if kind == 9:
        return ["", "All 12 leads are missing", "--- Recording unsuitable for analysis ---"]
    if kind in (1, 7):
        lines.insert(int(rng.integers(len(lines))), str(rng.choice(_NOTICES)))
    lines.insert(1, "")
    return lines


def _machine(case: Case, lines: list[str]) -> dict[str, object]:
    rng = np.random.default_rng([case.seed, 3, case.record])
    rr = int(rng.integers(500, 1200))
    values = [rr, 40, 128, 170, 258, 518, *(int(v) for v in rng.integers(-60, 90, 3))]
    if case.record % 5 == 0:
        values[1:3] = NOT_MEASURED, NOT_MEASURED
        values[6] = ""
    return {
        "cart_id": 6_000_000 + case.record % 7,
        "bandwidth": "0.005-150 Hz",
        "filtering": "60 Hz notch Baseline filter",
        **{f"report_{i}": line for i, line in enumerate(lines)},
        **dict(zip(_MEASUREMENTS, values, strict=True)),
    }


def _write(path: Path, columns, rows: list[dict]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
