"""What decides beside an encoder that is taken away: linear heads, prompts' embeddings, thresholds
and calibration of a run's best checkpoint. All of it comes from training and validation records;
`evaluate` writes it, `export` packs it, `ecg_jax.inference` uses it.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ecg_jax.errors import NoFigureError, UserError
from ecg_jax.evaluation import scoring, tasks
from ecg_jax.evaluation.figures import calibration, metrics
from ecg_jax.evaluation.protocols import features, zero_shot
from ecg_jax.evaluation.subject import Subject
from ecg_jax.run.experiment import Summary
from ecg_jax.runtime import files, storage
from ecg_jax.text import prompts

FILE = "heads.npz"  # in a run's folder
PROTOCOLS = ("linear_probe", "zero_shot")
# The class that others are set against, by the section that names it.
NORMAL = {"super": "NORM", "sub": "NORM", "scp": "NORM", "cpsc": "Normal", "aami": "N"}
NORMAL |= {"mit_rhythm": "NSR"}
LEAST = 20  # validation records that a probability against normal rests on


class Head(NamedTuple):
    """How the classes of one task are scored and judged.

    Attributes:
      dataset, task, protocol: whose classes, and "linear_probe" or "zero_shot".
      classes: K codes; `names` are the same in words.
      note: what was chosen on validation.
      records: validation records that were judged; `positives` int [K] of them have the class.
      threshold: float [K]; `score >= threshold` is yes. NaN: none could be chosen.
      slope, offset: float [K], probability = sigmoid(slope score + offset); NaN: not calibrated.
      options: of a probe `pooling` and `l2_normalize`.
      arrays: of a probe `mean`, `scale` [D], `kernel` [D, K], `bias` [K]; of zero-shot `classes`
        [K, E], and `centre` [E] if embeddings are centred.
    """

    dataset: str
    task: str
    protocol: str
    classes: Sequence[str]
    names: Sequence[str]
    note: str
    records: int
    positives: Sequence[int]
    threshold: Sequence[float | None]
    slope: Sequence[float | None]
    offset: Sequence[float | None]
    options: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    @property
    def key(self) -> tuple[str, str, str]:
        return self.dataset, self.task, self.protocol


class Words(NamedTuple):
    """How a class in words of one's own is scored, which has no labels to be judged by.

    Attributes:
      dataset, task: whose validation records the probability was fitted on.
      normal: the code of the class that others are set against; "" if the dataset has none.
      records, classes: how many records and classes of them the fit rests on.
      slope, offset: sigmoid(slope (score - score of normal) + offset) is how probable the class is
        where it or the normal is there, either being as likely beforehand; None without a fit.
      note: whether embeddings are centred, as chosen on validation.
      arrays: `normal` [E], the normal's class embedding; `centre` and `text_centre` [E], the mean
        record and report that are subtracted, if embeddings are centred.
    """

    dataset: str
    task: str
    normal: str
    records: int
    classes: int
    slope: float | None
    offset: float | None
    note: str
    arrays: Mapping[str, np.ndarray]


class Heads(NamedTuple):
    """All of a checkpoint; `words` is None where the method has no text side."""

    step: int
    heads: list[Head]
    words: Words | None


def fit(subject: Subject, step: int) -> Heads:
    """Heads of the config's tasks, by those protocols of the config that can be taken away."""
    config = subject.material.experiment.config.evaluate
    heads, words = [], None
    for task in config.tasks if "corrected" in config.rules else ():
        if "linear_probe" in config.protocols and 1.0 in config.fractions:
            heads.append(_probe(subject, task))
        if "zero_shot" in config.protocols and subject.reads_text:
            choice = scoring.choose_zero_shot(subject, task)
            heads.append(_prompts(subject, task, choice))
            words = _words(subject, task, choice) if words is None or not words.normal else words
    return Heads(step, [head for head in heads if head], words)


def score(head: Head, encoded: Summary) -> np.ndarray:
    """Scores float32 [N, K] of encoded records; NaN for a class that has none.

    Raises:
      UserError: the head was fitted on other features of the encoder.
    """
    arrays = head.arrays
    if head.protocol == "zero_shot":
        centre = arrays.get("centre")
        return scoring.zero_shot_scores(encoded.embedding, arrays["classes"], centre)
    x = features.pooled(encoded, _Options(**head.options))
    if x.shape[1] != len(arrays["mean"]):
        raise UserError(
            f"the head for {head.task} takes {len(arrays['mean'])} features, and this version "
            f"makes {x.shape[1]}: evaluate the run again, and export it"
        )
    return ((x - arrays["mean"]) / arrays["scale"]) @ arrays["kernel"] + arrays["bias"]


def probability(
    score: np.ndarray, slope: Sequence[float | None], offset: Sequence[float | None]
) -> np.ndarray:
    """float64 [N, K] of scores [N, K]; NaN where there is no calibration."""
    a, b = (np.array([math.nan if v is None else v for v in x]) for x in (slope, offset))
    return 1 / (1 + np.exp(-(a * np.asarray(score, np.float64) + b)))


class _Options(NamedTuple):
    pooling: str
    l2_normalize: bool


def _probe(subject: Subject, task: str) -> Head | None:
    try:
        fitted = scoring.fit_linear_probe(subject, task, "corrected")
    except NoFigureError:
        return None
    probe, note = subject.probes[task, "corrected", 1.0]
    config = subject.material.experiment.config.evaluate
    arrays = {name: getattr(probe, name) for name in ("mean", "scale", "kernel", "bias")}
    options = {"pooling": config.pooling, "l2_normalize": config.l2_normalize}
    return _head(subject, task, "linear_probe", fitted, note, options, arrays)


def _prompts(subject: Subject, task: str, choice: scoring.Choice) -> Head:
    arrays = {"classes": choice.classes}
    if choice.centre is not None:
        arrays["centre"] = choice.centre.astype(np.float32)
    fitted = scoring.by_choice(subject, choice)
    return _head(subject, task, "zero_shot", fitted, fitted.note, {}, arrays)


def _head(
    subject: Subject,
    task: str,
    protocol: str,
    fitted: scoring.Fitted,
    note: str,
    options: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> Head:
    """With thresholds and calibration of the validation records."""
    validation = subject.material.experiment.validation
    rows, y = scoring.judged(validation, task, "corrected")
    scores = fitted.score(validation)[rows]
    codes = validation.classes[task]
    platt = [
        calibration.platt(y[:, k], scores[:, k])
        if calibration.drawable(y[:, k], scores[:, k])
        else calibration.Platt(math.nan, math.nan)
        for k in range(len(codes))
    ]
    return Head(
        dataset=validation.dataset,
        task=task,
        protocol=protocol,
        classes=list(codes),
        names=in_words(subject, task),
        note=note,
        records=len(rows),
        positives=y.sum(axis=0).tolist(),
        threshold=_known(metrics.best_f1_threshold(y, scores)),
        slope=_known(p.slope for p in platt),
        offset=_known(p.offset for p in platt),
        options=dict(options),
        arrays=dict(arrays),
    )


def in_words(subject: Subject, task: str) -> list[str]:
    """The classes' names as the prompts have them."""
    experiment = subject.material.experiment
    section = tasks.section(experiment.validation.dataset, task)
    codes = experiment.validation.classes[task]
    entries = prompts.entries_of(codes, section, experiment.config.evaluate.prompts or None)
    return [entries[code]["name"] for code in codes]


def _words(subject: Subject, task: str, choice: scoring.Choice) -> Words:
    validation = subject.material.experiment.validation
    codes = list(validation.classes[task])
    normal = NORMAL.get(tasks.section(validation.dataset, task), "")
    normal = normal if normal in codes else ""
    centred = choice.centre is not None
    arrays, kind = {}, "centred" if centred else "as they are"
    if centred:
        assert subject.bank is not None
        arrays = {"centre": choice.centre, "text_centre": subject.bank.mean}
    found = Words(validation.dataset, task, normal, 0, 0, None, None, f"embeddings {kind}", {})
    if normal:
        embedded = {
            label: _plain(subject.embed(x), arrays.get("text_centre"))
            for label, (_, x) in subject.material.prompts(task)["report"].items()
        }
        classes = zero_shot.class_embeddings(embedded)
        arrays["normal"] = classes[codes.index(normal)]
        rows, y = scoring.judged(validation, task, "corrected")
        embedding = subject.encode(validation).embedding[rows]
        scores = scoring.zero_shot_scores(embedding, classes, choice.centre)
        found = found._replace(**_against(scores, y, codes.index(normal)))
    return found._replace(arrays={k: np.asarray(v, np.float32) for k, v in arrays.items()})


def _plain(x: np.ndarray, centre: np.ndarray | None) -> np.ndarray:
    return x if centre is None else zero_shot.centred(x, centre)


def _against(scores: np.ndarray, y: np.ndarray, normal: int) -> dict[str, Any]:
    """One logistic regression over all classes but the normal: does a record with one of the two
    have the class or is it normal, by the difference of their cosines. In every class positives and
    negatives weigh the same, and classes do, so that prevalences have no part in it."""
    margins, labels, often, used = [], [], [], set()
    for k in range(y.shape[1]):
        rows = np.flatnonzero(y[:, k] != y[:, normal])
        positive = y[rows, k]
        if k == normal or not positive.any() or positive.all():
            continue
        margins.append(scores[rows, k] - scores[rows, normal])
        labels.append(positive)
        often.append(np.where(positive, 0.5 / positive.sum(), 0.5 / (~positive).sum()))
        used |= set(rows.tolist())
    if len(used) < LEAST:
        return {"records": len(used), "classes": len(margins)}
    weight = np.concatenate(often) * len(used) / len(often)
    fitted = calibration.platt(np.concatenate(labels), np.concatenate(margins), weight)
    return {"records": len(used), "classes": len(margins), **fitted._asdict()}


def _known(values: Any) -> list[float | None]:
    """As JSON has them: None for what is not a number."""
    return [float(v) if math.isfinite(v) else None for v in values]


def described(heads: Heads) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What JSON can hold of them, and the arrays by name."""
    told, arrays = [], {}
    for number, head in enumerate(heads.heads):
        told.append({k: v for k, v in head._asdict().items() if k != "arrays"})
        arrays |= {f"{number}.{name}": x for name, x in head.arrays.items()}
    words = None
    if heads.words:
        words = {k: v for k, v in heads.words._asdict().items() if k != "arrays"}
        arrays |= {f"words.{name}": x for name, x in heads.words.arrays.items()}
    return {"step": heads.step, "heads": told, "words": words}, arrays


def restored(told: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Heads:
    """What `described` made. Raises KeyError or TypeError where something is missing."""

    def of(prefix: str) -> dict[str, np.ndarray]:
        names = [name for name in arrays if name.startswith(f"{prefix}.")]
        return {name.removeprefix(f"{prefix}."): np.asarray(arrays[name]) for name in names}

    heads = [Head(**fields, arrays=of(str(i))) for i, fields in enumerate(told["heads"])]
    words = Words(**told["words"], arrays=of("words")) if told["words"] else None
    return Heads(told["step"], heads, words)


def write(new: Heads, path: Path) -> None:
    """Beside what the file holds of the same checkpoint and other tasks.

    Raises:
      UserError: the file cannot be written, or what is there is damaged.
    """
    old = read(path)
    if old and old.step == new.step:
        keys = {head.key for head in new.heads}
        kept = [head for head in old.heads if head.key not in keys]
        same = new.words and old.words and new.words.dataset == old.words.dataset
        words = new.words if same or not old.words else old.words  # not those of a transfer
        new = Heads(new.step, kept + new.heads, words)
    header, arrays = described(new)
    files.write_arrays(path, header, arrays)


def read(path: Path) -> Heads | None:
    """What `write` wrote; None where there is no file.

    Raises:
      UserError: the file is damaged.
    """
    if not storage.exists(path):
        return None
    with files.open_arrays(path) as (header, arrays):
        return restored(header, arrays)
