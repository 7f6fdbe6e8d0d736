"""Delineation: an encoder frozen and free, from shares of the labels, against untrained ones.

From a random encoder the free one is supervised training from scratch.
"""

from typing import Any, NamedTuple

import numpy as np

from ecg_jax.data.leads import LEADS
from ecg_jax.evaluation.figures import paired, results, waves
from ecg_jax.evaluation.protocols.delineate import Delineator, share
from ecg_jax.evaluation.subject import Subject
from ecg_jax.run.experiment import Experiment

TASK = "waves"
SECOND = LEADS.index("II")
TASKS = ((TASK, slice(None)), (f"{TASK}, lead II", [SECOND]))
PROTOCOL = "delineate"
FREE = {"random": "supervised"}  # what a free encoder is called, if not by its start's name


class Found(NamedTuple):
    """The waves that a network found in the test records: uint8 [N, T, 12]; and the mean over P,
    QRS and T of sample-level F1 in lead II of each record, float [N], NaN where nothing is
    labelled."""

    encoder: str
    fraction: float
    segments: np.ndarray
    f1: np.ndarray


class Delineation:
    """Delineation by several encoders, one after the other, on the same records.

    Attributes:
      best: what the first encoder found, free, with the largest share of the labels.
    """

    def __init__(self, experiment: Experiment):
        """Raises a UserError: see `Delineator`."""
        self._delineator, self._experiment = Delineator(experiment), experiment
        self._counts: dict[tuple[str, float, str], list[dict[str, Any]]] = {}
        self.best: Found | None = None

    def rows(self, subject: Subject) -> list[results.Row]:
        """Figures of the test records, of all leads together and of lead II, frozen and free, for
        every share of the labels that config.evaluate.fractions names.

        Raises:
          UserError: see `Delineator`.
        """
        config, test = self._experiment.config, self._experiment.test
        table = []
        for fraction in config.evaluate.fractions:
            train, note = share(self._experiment.train, fraction, config.seed)
            for free in (False, True):
                name = FREE.get(subject.name, subject.name) if free else f"{subject.name}, frozen"
                print(f"{name}, delineate: {note}", flush=True)
                fitted = self._delineator.fit(
                    subject.params, subject.state, train, free=free, seed=config.seed
                )
                found = self._delineator.predict(fitted, test)
                for task, leads in TASKS:
                    each = counted(found, test, leads)
                    self._counts[task, fraction, name] = each
                    of = _where(test, task, name, fraction)
                    of["choice"] = f"{note}; {fitted.note}"
                    table += waves.rows(each, test.patient_id, config.evaluate.draws, **of)
                if free and self.best is None and fraction == max(config.evaluate.fractions):
                    second = self._counts[TASKS[1][0], fraction, name]
                    self.best = Found(name, fraction, found, waves.sample_f1(second))
        return table

    def compared(self) -> list[results.Row]:
        """Sample-level F1 and boundary F1 of each encoder less the untrained one's, with p of a
        paired permutation test, corrected for the comparisons of one share and metric (Holm)."""
        table, test = [], self._experiment.test
        for (task, fraction, name), own in self._counts.items():
            against = "random, frozen" if name.endswith(", frozen") else "supervised"
            other = self._counts.get((task, fraction, against))
            if name == against or other is None:
                continue
            for (label, metric), (value, p) in waves.compare(own, other, test.patient_id).items():
                of = _where(test, task, name, fraction) | {"label": label}
                of |= {"metric": f"{metric}_gain", "value": value, "p": p, "against": against}
                note = f"paired permutation test, {paired.PERMUTATIONS:,} permutations; Holm's"
                of |= {"ci_low": np.nan, "ci_high": np.nan, "n": len(own), "positives": len(own)}
                table.append(of | {"chance": 0.0, "choice": "", "note": note})
        together: dict[tuple, list[results.Row]] = {}
        for row in table:
            together.setdefault((row["task"], row["fraction"], row["metric"]), []).append(row)
        for rows in together.values():
            corrected = paired.holm([row["p"] for row in rows])
            for row, p in zip(rows, corrected, strict=True):
                row["p_holm"] = float(p)
        return table


def counted(found: np.ndarray, test: Any, leads: Any) -> list[dict[str, Any]]:
    """`waves.counts` of each test record, of some of its leads."""
    return [
        waves.counts(a[:, leads], b[:, leads], known[:, leads], test.rate)
        for a, b, known in zip(found, test.segments, test.segments_mask, strict=True)
    ]


def _where(test: Any, task: str, encoder: str, fraction: float) -> dict[str, Any]:
    return dict(
        task=task,
        dataset=test.dataset,
        split="test",
        protocol=PROTOCOL,
        encoder=encoder,
        rule="",
        fraction=fraction,
        condition="",
    )
