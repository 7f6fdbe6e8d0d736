"""What a report shows. Whatever is left empty is left out of the page, which says so."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures.predictions import Predictions
from ecg_jax.evaluation.figures.results import Row


@dataclasses.dataclass(frozen=True)
class Sample:
    """One record as a clinician would read it.

    Attributes:
      dataset, task: whose record it is, and whose classes are named.
      kind: "typical", "best" or "worst".
      record_id: its name.
      ecg: int16 [T, 12], microvolts, leads in the order of `LEADS`; its own samples, no padding.
      rate: Hz.
      lead_mask: bool [12], true where the record has the lead.
      report: the text as published; "" for none.
      labels: names of its true classes.
      protocol: whose scores they are.
      scores: (class, score), the highest first.
      prompts: (wording, cosine), the nearest first.
      note: why it is shown, e.g. "mean rank of the true classes 1.0".
    """

    dataset: str
    task: str
    kind: str
    record_id: str
    ecg: np.ndarray
    rate: int
    lead_mask: np.ndarray
    report: str = ""
    labels: Sequence[str] = ()
    protocol: str = ""
    scores: Sequence[tuple[str, float]] = ()
    note: str = ""
    prompts: Sequence[tuple[str, float]] = ()


@dataclasses.dataclass(frozen=True)
class Waves:
    """Which samples of lead II are of a P wave, a QRS complex or a T wave, as annotated and as
    found.

    Attributes:
      dataset, task: whose record it is; "waves".
      kind: "best" or "worst", as in `Sample`.
      record_id: its name.
      ecg: int16 [T], microvolts.
      rate: Hz.
      true, found: uint8 [T], 0 for none, then P, QRS, T.
      known: bool [T], where the record is annotated.
      note: why it is shown.
    """

    dataset: str
    task: str
    kind: str
    record_id: str
    ecg: np.ndarray
    rate: int
    true: np.ndarray
    found: np.ndarray
    known: np.ndarray
    note: str = ""


@dataclasses.dataclass(frozen=True)
class PromptMap:
    """Which prompt lies near which class: mean cosine of a prompt and the records of a class.

    Attributes:
      dataset, task: whose classes they are.
      classes: K names.
      prompts: P texts.
      prompt_class: P names, the class that each prompt was written for.
      similarity: float [P, K]; NaN for a class without records.
      note: e.g. "validation; prompt set clinical".
    """

    dataset: str
    task: str
    classes: Sequence[str]
    prompts: Sequence[str]
    prompt_class: Sequence[str]
    similarity: np.ndarray
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Embedding:
    """A 2-D map of records.

    Attributes:
      dataset, task: whose records and classes they are.
      xy: float [N, 2].
      label: int [N], index into `classes`, of several labels the rarest; -1 for a record of none.
      classes: names.
      note: e.g. "t-SNE of the frozen features, test split".
    """

    dataset: str
    task: str
    xy: np.ndarray
    label: np.ndarray
    classes: Sequence[str]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Content:
    """Everything of one page.

    Attributes:
      title: of the page.
      description: (name, value) pairs: run, dataset, split hash, versions, device, text tower.
      limits: sentences that the reader must know, such as that a text tower is a stand-in.
      drawn: of a page of several runs, which of them curves, maps and recordings are of, as a
        sentence.
      rows: result rows; those of several seeds tell them apart by their `seed`.
      compared: result rows of one encoder against another (`across.compared`).
      predictions: of the test split.
      validation: of the validation split; calibration is fitted on those of the same task,
        protocol, encoder, rule, fraction and condition.
      published: dicts with task, protocol, metric and value (0-1), and optionally rule ("paper" if
        not given), label (a class; macro if not given), dataset, fraction, source, note.
      history: rows of metrics.jsonl, optionally with `seed`.
      prompts, embeddings, samples, waves: see their classes.
      words: (dataset, task) -> {class: what it is}.
    """

    title: str
    description: Sequence[tuple[str, str]] = ()
    limits: Sequence[str] = ()
    drawn: str = ""
    rows: Sequence[Row] = ()
    compared: Sequence[Row] = ()
    predictions: Sequence[Predictions] = ()
    validation: Sequence[Predictions] = ()
    published: Sequence[dict[str, Any]] = ()
    history: Sequence[dict[str, Any]] = ()
    prompts: Sequence[PromptMap] = ()
    embeddings: Sequence[Embedding] = ()
    samples: Sequence[Sample] = ()
    words: Mapping[tuple[str, str], Mapping[str, str]] = dataclasses.field(default_factory=dict)
    waves: Sequence[Waves] = ()


def check(content: Content) -> None:
    """Raises a UserError if arrays do not fit each other."""
    for p in (*content.predictions, *content.validation):
        N, K = len(p.record_id), len(p.classes)
        _fit(f"predictions of {p.task}: labels", p.y, (N, K))
        _fit(f"predictions of {p.task}: scores", p.score, (N, K))
    for m in content.prompts:
        shape = (len(m.prompts), len(m.classes))
        _fit(f"prompts of {m.task}: similarities", m.similarity, shape)
        _fit(f"prompts of {m.task}: classes of prompts", np.asarray(m.prompt_class), shape[:1])
    for e in content.embeddings:
        _fit(f"map of {e.task}: coordinates", e.xy, (len(e.label), 2))
    for s in content.samples:
        if np.asarray(s.ecg).dtype != np.int16:
            raise UserError(f"sample {s.record_id}: the ECG must be int16 microvolts")
        _fit(f"sample {s.record_id}: leads", np.asarray(s.ecg)[:1], (1, 12))
        _fit(f"sample {s.record_id}: lead_mask", s.lead_mask, (12,))
    for w in content.waves:
        for name in ("true", "found", "known"):
            _fit(f"waves of {w.record_id}: {name}", getattr(w, name), np.shape(w.ecg))


def _fit(what: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if np.shape(array) != shape:
        raise UserError(f"report: {what} have shape {np.shape(array)}, expected {shape}")
