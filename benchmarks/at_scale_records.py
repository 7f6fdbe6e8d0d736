"""What `benchmarks.at_scale` prepares: any number of different records, at a millisecond each.

A record is the weighed and shifted sum of two of a few simulated ones, which keeps Einthoven's law;
so is a patient's heart, but no one looks at these for what they show. Reports are sentences with
numbers, of which there are as many as are asked for.
"""

import functools
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.build import EcgBuilder, RateConfig, features
from tfds_builders.download import Published
from tfds_builders.jobs import Job
from tfds_builders.leads import LEADS
from tfds_builders.simulated.findings import draw_findings
from tfds_builders.simulated.simulator import simulate
from tfds_builders.survey import Survey

RATE, SECONDS, BASES = 100, 10, 32
_WORDS = ("sinus rhythm", "sinus bradycardia", "atrial fibrillation", "normal ecg", "st depression")


class AtScale(EcgBuilder):
    """TFDS builder of `records` records with `texts` different reports, one in ten to validate."""

    BUILDER_CONFIGS: ClassVar = [RateConfig(name=f"rate{RATE}", description="", rate=RATE)]
    PUBLISHED: ClassVar = Published("at scale, not recorded from people", "", "", bool)
    PUBLISHED_RATE: ClassVar = RATE
    SECONDS: ClassVar = (SECONDS, SECONDS)
    SUFFIXES: ClassVar = ()
    RECORDS_PER_SHARD: ClassVar = 1000

    records, texts = 1000, 100

    def _info(self) -> tfds.core.DatasetInfo:
        return self._make_info(
            features({"words": len(_WORDS)}, RATE * SECONDS), classes={"words": list(_WORDS)}
        )

    def _files(self, source):
        return []

    def _plan(self, source, files, sums):
        held = self.records // 10
        return {
            "validation": Jobs(0, held, self.texts),
            "train": Jobs(held, self.records, self.texts),
        }

    def _survey(self, source) -> Survey:
        return Survey(source, self._plan(source, [], {}), {}, self.records, 0, "")


class Jobs(Sequence[Job]):
    """The jobs of records `start` to `stop`, each made when it is asked for."""

    def __init__(self, start: int, stop: int, texts: int):
        self._range, self._texts = range(start, stop), texts

    def __len__(self) -> int:
        return len(self._range)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self._job(i) for i in self._range[index]]
        return self._job(self._range[index])

    def _job(self, i: int) -> Job:
        return Job(f"{i:08d}", functools.partial(example, i, self._texts), f"{i:08d}")


def example(i: int, texts: int) -> list[dict]:
    """Record i, the same on any machine."""
    rng = np.random.default_rng([7, i])
    one, other = _bases()[rng.integers(BASES)], _bases()[rng.integers(BASES)]
    ecg = rng.uniform(0.5, 1.5) * np.roll(one, rng.integers(RATE * SECONDS), axis=0)
    ecg += rng.uniform(0.1, 0.5) * np.roll(other, rng.integers(RATE * SECONDS), axis=0)
    text = i * 40_503 % texts  # so that neighbours differ
    word = text % len(_WORDS)
    return [
        {
            "ecg": np.rint(ecg).astype(np.int16),
            "lead_mask": np.ones(len(LEADS), bool),
            "record_id": f"{i:08d}",
            "patient_id": f"{i // 5:08d}",
            "report": f"{_WORDS[word]}. rate {text % 997}. axis {text // 997} degrees.",
            "fold": 1,
            "labels": {"words": np.eye(len(_WORDS), dtype=np.uint8)[word]},
        }
    ]


@functools.cache
def _bases() -> np.ndarray:
    rng = np.random.default_rng(7)
    made = [simulate(rng, findings=draw_findings(rng), rate_hz=RATE) for _ in range(BASES)]
    return np.stack([simulated.potentials for simulated in made]).astype(np.float32)
