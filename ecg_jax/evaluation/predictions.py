"""What an evaluator predicted, record by record: from it figures are drawn and counted again."""

from typing import NamedTuple

import numpy as np


class Predictions(NamedTuple):
    """Scores of one encoder on one split; row i of every array is one record.

    Attributes:
      task, dataset, protocol, encoder, rule, fraction, condition: as in the rows of results.json.
      classes: K names.
      record_id, patient_id: N strings each.
      y: bool [N, K], the labels.
      score: float32 [N, K], higher for the more likely; a column of NaN is a class without a score.
      threshold: float64 [K], `score >= threshold` is positive; NaN for none.
    """

    task: str
    dataset: str
    protocol: str
    encoder: str
    rule: str
    fraction: float | None
    condition: str
    classes: list[str]
    record_id: np.ndarray
    patient_id: np.ndarray
    y: np.ndarray
    score: np.ndarray
    threshold: np.ndarray
