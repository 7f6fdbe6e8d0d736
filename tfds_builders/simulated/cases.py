"""Which patients and records a simulated dataset holds; any one can be made without the others."""

import dataclasses

import numpy as np

from tfds_builders.errors import RecordError
from tfds_builders.simulated import heart
from tfds_builders.simulated.findings import draw_findings
from tfds_builders.simulated.reports import report
from tfds_builders.simulated.simulator import Simulated, simulate

SECONDS = 10
_SHARE_WITH_TWO = 0.15  # of patients

# What the second word of a generator's seed stands for.
_VISITS, _PATIENT, _RECORD = range(3)


@dataclasses.dataclass(frozen=True)
class Case:
    """One record of a simulated dataset."""

    seed: int
    record: int  # from 1
    patient: int  # from 1
    fold: int  # 1-10, the same for all records of a patient


def draw_cases(records: int, seed: int) -> list[Case]:
    """Lists the cases: about 15 % of patients have two, and folds take patients in turn.

    A smaller dataset of the same seed is the beginning of a larger one. Raises RecordError unless
    `records` is positive.
    """
    if records < 1:
        raise RecordError(f"cannot simulate {records} records: at least 1")
    twice = np.random.default_rng([seed, _VISITS]).random(records) < _SHARE_WITH_TWO
    patients = np.repeat(np.arange(records), 1 + twice)[:records]
    return [
        Case(seed, record=i + 1, patient=int(patient) + 1, fold=int(patient) % 10 + 1)
        for i, patient in enumerate(patients)
    ]


def make(case: Case, rate_hz: float) -> tuple[Simulated, str]:
    """Simulates a case and its report; a patient's records share anatomy and findings."""
    rng = np.random.default_rng([case.seed, _PATIENT, case.patient])
    patient, findings = heart.draw_patient(rng), draw_findings(rng)
    rng = np.random.default_rng([case.seed, _RECORD, case.record])
    text = report(rng, findings)
    return (
        simulate(rng, findings=findings, rate_hz=rate_hz, seconds=SECONDS, patient=patient),
        text,
    )
