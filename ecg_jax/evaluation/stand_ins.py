"""What takes an encoder's place in zero-shot classification, to know what a figure is worth."""

import dataclasses

import numpy as np

from ecg_jax.data.records import Records
from ecg_jax.evaluation.protocols.zero_shot import unit
from ecg_jax.evaluation.subject import Subject
from ecg_jax.run.experiment import Summary


@dataclasses.dataclass
class OwnReport(Subject):
    """A record's own report in place of its ECG: what the reports and prompts give away. A record
    without a report has the mean one's embedding."""

    def _compute(self, records: Records) -> Summary:
        texts, row = self.material.reports_of(records)
        embedding = self.embed(texts)
        mean = unit(embedding[row[row >= 0]].mean(axis=0), "the mean report's")
        own = np.where(row[:, None] >= 0, embedding[row], mean).astype(np.float32)
        return Summary(own, own)


@dataclasses.dataclass
class RandomHeads(Subject):
    """An encoder's features and the text tower's, brought into one space by heads drawn at random:
    one draw of what prompts and their choice on validation reach by chance.

    Attributes:
      of: the subject whose features they are.
      draw: which draw.
    """

    of: Subject | None = None
    draw: int = 0

    def _head(self, width: int, side: int) -> np.ndarray:
        config = self.material.experiment.config
        rng = np.random.default_rng([config.seed, self.draw, side])
        shape = (width, config.model.dim)
        return rng.standard_normal(shape, np.float32) / np.float32(np.sqrt(width))

    def _compute(self, records: Records) -> Summary:
        assert self.of is not None
        features = self.of.encode(records).features
        made = unit(features @ self._head(features.shape[1], 0), "a record's")
        return Summary(features, made.astype(np.float32))

    def embed(self, text: np.ndarray) -> np.ndarray:
        return unit(text @ self._head(text.shape[1], 1), "a text's").astype(np.float32)
