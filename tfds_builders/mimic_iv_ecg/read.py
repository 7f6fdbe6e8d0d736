"""One record of MIMIC-IV-ECG as an example."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tfds_builders.errors import RecordError
from tfds_builders.gaps import read_wfdb_with_gaps
from tfds_builders.header import Header
from tfds_builders.leads import LEADS
from tfds_builders.mimic_iv_ecg import statements
from tfds_builders.mimic_iv_ecg.table import Row

FS, SECONDS = 500, 10
_SUBJECT = re.compile(r"#\s*<subject_id>:\s*(\d+)")

# The split: by a hash of the subject, so that all of a patient's records are in one of them and a
# part of the dataset is divided as the whole is. Of 100 folds 98 train, 1 validates, 1 tests.
NUM_FOLDS = 100
SPLIT_SEED = "ecg_jax/mimic_iv_ecg/0"


def fold_of(subject: int) -> int:
    """1-100, the same wherever and in whatever company a record of the subject is read."""
    digest = hashlib.sha256(f"{SPLIT_SEED}:{subject}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % NUM_FOLDS + 1


def split_of(fold: int) -> str:
    return {99: "validation", 100: "test"}.get(fold, "train")


def classes() -> dict[str, list[str]]:
    """{task: classes}: the machine's statements in PTB-XL's codes, and what they map to."""
    return {
        "statements": list(statements.classes_of("super")),
        "super": list(statements.SUPERCLASSES),
        "cpsc": list(statements.CPSC),
    }


def example(root: Path, row: Row, rate: int, sha256: Mapping[str, str]) -> list[dict]:
    """The record's one example at `rate` Hz; raises RecordError."""
    stem = root / row.stem
    (ecg, lead_mask), missing, header = read_wfdb_with_gaps(
        stem, rate, sha256=sha256, required_leads=LEADS, published_rate=FS
    )
    _check_subject(header, row, stem)
    report = statements.read_report(row.lines)
    present = {
        "statements": set(report.certainty),
        "super": statements.superclasses(report.certainty),
        "cpsc": statements.cpsc_classes(report.certainty),
    }
    cart, bandwidth, filtering = row.device
    return [
        {
            "ecg": ecg,
            "lead_mask": lead_mask,
            "record_id": str(row.study),
            "patient_id": str(row.subject),
            "report": report.text,
            "fold": fold_of(row.subject),
            "labels": {task: _multi_hot(present[task], names) for task, names in classes().items()},
            "certainty": np.array(
                [report.certainty.get(code, 0) for code in classes()["statements"]], np.uint8
            ),
            "quality": _multi_hot(report.flags, statements.flags()),
            "missing_samples": missing,
            "measurements": row.measurements,
            "cart_id": cart,
            "bandwidth": bandwidth,
            "filtering": filtering,
        }
    ]


def _multi_hot(present, names) -> np.ndarray:
    return np.array([name in present for name in names], np.uint8)


def _check_subject(header: Header, row: Row, stem: Path) -> None:
    stated = [match[1] for line in header.comments if (match := _SUBJECT.fullmatch(line))]
    if stated != [str(row.subject)]:
        said = f"of subject {', '.join(stated)}" if stated else "of no subject"
        raise RecordError(f"{stem}.hea: is {said}, record_list.csv says {row.subject}")
