"""NeuroKit2's delineation of LUDB's test records, judged as the protocol `delineate` judges.

    python -m benchmarks.delineate_neurokit --data_dir data [--rate 500] [--methods dwt,cwt]

It needs `pip install neurokit2`. Each lead is cleaned, R peaks are found in it, and P, QRS and T
are what its method says between the onset and the offset that it names; a wave of which it names
one of the two alone is none.
"""

import argparse
import warnings
from collections.abc import Iterator

import numpy as np

from ecg_jax.data import records
from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError, run_main
from ecg_jax.evaluation.delineate import TASKS, counted
from ecg_jax.evaluation.figures import tables, waves
from ecg_jax.run import config

ENDS = {"P": ("P", "P"), "QRS": ("R", "R"), "T": ("T", "T")}  # as NeuroKit2 names onsets, offsets


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--methods", default="dwt")
    parser.add_argument("--draws", type=int, default=1000)
    args = parser.parse_args()
    config.know_configs()
    test = records.load(args.data_dir, "ludb", args.rate, "test")
    rows = []
    for method in args.methods.split(","):
        found = np.stack([np.stack(list(delineated(ecg, args.rate, method)), axis=1)
                          for ecg in test.ecg])  # fmt: skip
        for task, leads in TASKS:
            each = counted(found, test, leads)
            rows += [
                row | {"seed": 0}
                for row in waves.rows(
                    each, test.patient_id, args.draws, task=task, dataset="ludb", split="test",
                    protocol="delineate", encoder=f"NeuroKit2 {method}", rule="", fraction=1.0,
                    condition="", choice="",
                )
            ]  # fmt: skip
    print(tables.table(rows))
    for row in rows:
        if row["label"] != "macro" and "lead II" in row["task"]:
            print(f"{row['encoder']}  {row['label']:<12}{row['metric']:<18}{row['value']:.3f}")


def delineated(ecg: np.ndarray, rate: int, method: str) -> Iterator[np.ndarray]:
    """uint8 [T] of each lead of a record, int16 [T, 12] microvolts."""
    try:
        import neurokit2
    except ImportError:
        raise UserError("NeuroKit2 is not installed: pip install neurokit2") from None
    for lead in range(len(LEADS)):
        segments = np.zeros(len(ecg), np.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                clean = neurokit2.ecg_clean(ecg[:, lead] / 1000, sampling_rate=rate)
                _, peaks = neurokit2.ecg_peaks(clean, sampling_rate=rate)
                _, marks = neurokit2.ecg_delineate(clean, peaks, sampling_rate=rate, method=method)
            except (ValueError, IndexError, ZeroDivisionError):  # as it ends where it finds no beat
                yield segments
                continue
        for kind, name in enumerate(waves.NAMES):
            if kind:
                onset, offset = (f"ECG_{n}_{e}" for n, e in
                                 zip(ENDS[name], ("Onsets", "Offsets"), strict=True))  # fmt: skip
                for first, last in zip(marks[onset], marks[offset], strict=True):
                    if np.isfinite(first) and np.isfinite(last) and first <= last:
                        segments[int(first) : int(last) + 1] = kind
        yield segments


if __name__ == "__main__":
    run_main(main)
