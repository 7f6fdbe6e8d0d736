"""The Python face of a trained model.

model = ecg_jax.load("FOLDER")
print(model.classify(ecg_jax.read("record.xml")))
"""

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import jax
import numpy as np

from ecg_jax.data.leads import LEADS
from ecg_jax.data.recording import Recording, Window
from ecg_jax.errors import UserError
from ecg_jax.evaluation import heads as heads_lib
from ecg_jax.evaluation import scoring
from ecg_jax.evaluation.heads import Head
from ecg_jax.inference import hub
from ecg_jax.inference import words as words_lib
from ecg_jax.inference.exported import (
    Exported,
    assembled,
    load_exported,
    of,
)
from ecg_jax.inference.scores import Scores
from ecg_jax.run import config as config_lib
from ecg_jax.run.experiment import Summary
from ecg_jax.runtime import process, storage

BATCH = 16  # recordings that are encoded together; one alone has a program of its own


def load(where: str | Path, *, text: str | Path | None = None) -> "Model":
    """Loads a model.

    Args:
      where: a folder that `ecg_jax.export` wrote, a run's folder, or "hf:OWNER/NAME" of the Hugging
        Face hub ("hf:OWNER/NAME@REVISION").
      text: a folder with the text model's files, if they are not where the run had them. Only
        classes in words of one's own need them.

    Raises:
      UserError: there is no model, or it is damaged.
    """
    process.configure()
    if str(where).startswith(hub.PREFIX):
        return Model(load_exported(hub.download(str(where).removeprefix(hub.PREFIX))), text)
    return Model(assembled(of(storage.path(where))), text)


class Model:
    """A trained encoder with what decides beside it.

    Every method takes one recording or a list, and gives one result or a list. `start` is where in
    the recording the model looks, in seconds; `pad` takes shorter recordings, filled up with zeros.
    A lead that is missing, or that the encoder has never seen, is zero and masked.
    """

    def __init__(self, exported: Exported, text: str | Path | None = None):
        self.exported = exported
        self.config = config_lib.from_json(exported.config["config"])
        self._text = str(text) if text else None

    @property
    def rate(self) -> int:
        """Hz; recordings of another rate are resampled."""
        return self.config.rate

    @property
    def seconds(self) -> float:
        return self.config.seconds

    @property
    def trained_leads(self) -> list[str]:
        return self.exported.config["input"].get("trained_leads", list(LEADS))

    @property
    def heads(self) -> list[Head]:
        """How classes are scored and judged; none, of a run that was not evaluated."""
        return self.exported.heads.heads if self.exported.heads else []

    def features(self, recordings: Any, *, start: float = 0.0, pad: bool = False) -> np.ndarray:
        """What downstream models are trained on: float32 [D], or [N, D] of a list.

        Raises:
          UserError: a recording that does not fit the model.
        """
        found = self.encode(self.windows(_listed(recordings), start, pad)).features
        return found[0] if isinstance(recordings, Recording) else found

    def embeddings(self, recordings: Any, *, start: float = 0.0, pad: bool = False) -> np.ndarray:
        """In the joint space with texts: float32 [E], or [N, E] of a list. Raises as `features`."""
        found = self.encode(self.windows(_listed(recordings), start, pad)).embedding
        return found[0] if isinstance(recordings, Recording) else found

    @overload
    def classify(
        self,
        recordings: Recording,
        task: str = ...,
        *,
        protocol: str = ...,
        start: float = ...,
        pad: bool = ...,
    ) -> Scores: ...
    @overload
    def classify(
        self,
        recordings: Sequence[Recording],
        task: str = ...,
        *,
        protocol: str = ...,
        start: float = ...,
        pad: bool = ...,
    ) -> list[Scores]: ...
    def classify(self, recordings, task="", *, protocol="linear_probe", start=0.0, pad=False):
        """Scores of a task's classes by the model's own head, with thresholds and probabilities of
        validation.

        Args:
          recordings: one, or a list.
          task: such as "super"; the first that there is if not given.
          protocol: "linear_probe", which learnt from labels, or "zero_shot", which did not.
          start, pad: see `Model`.

        Raises:
          UserError: the model has no such head, or a recording does not fit it.
        """
        head = self.head(task, protocol)
        given = _listed(recordings)
        windows = self.windows(given, start, pad)
        found = self.scores(given, windows, self.encode(windows), head)
        return found[0] if isinstance(recordings, Recording) else found

    @overload
    def zero_shot(
        self,
        recordings: Recording,
        classes: Sequence[str] | Mapping[str, Any],
        *,
        start: float = ...,
        pad: bool = ...,
    ) -> Scores: ...
    @overload
    def zero_shot(
        self,
        recordings: Sequence[Recording],
        classes: Sequence[str] | Mapping[str, Any],
        *,
        start: float = ...,
        pad: bool = ...,
    ) -> list[Scores]: ...
    def zero_shot(self, recordings, classes, *, start=0.0, pad=False):
        """Scores of classes in words: cosines of the recording and the text in the joint space.

        Args:
          recordings: one, or a list.
          classes: texts, or {class: its wordings}. Write them as reports are written.
          start, pad: see `Model`.

        Raises:
          UserError: a method without text, no text model, or a recording that does not fit.
        """
        wordings = words_lib.classes_of(classes)
        embedded, given = self.embed_classes(wordings), _listed(recordings)
        windows = self.windows(given, start, pad)
        found = self.in_words(given, windows, self.encode(windows), list(wordings), embedded)
        return found[0] if isinstance(recordings, Recording) else found

    def head(self, task: str = "", protocol: str = "linear_probe") -> Head:
        """Raises a UserError where there is none."""
        if not self.heads:
            raise UserError(
                "this model has no heads: evaluate its run (python -m ecg_jax.evaluate), and "
                "export it again"
            )
        fitting = [h for h in self.heads if h.protocol == protocol and (not task or h.task == task)]
        if not fitting:
            there = ", ".join(f"{h.task} by {h.protocol}" for h in self.heads)
            raise UserError(f"no head for {task or 'any task'} by {protocol}: there are {there}")
        return fitting[0]

    def embed_classes(self, wordings: Mapping[str, Sequence[str]]) -> np.ndarray:
        """Class embeddings float32 [K, E]. Raises a UserError as `zero_shot`."""
        encode = self.exported.encode_text
        if encode is None:
            raise UserError(f"{self.config.method} was trained without text: it knows no words")
        template = self.exported.config["text_tower"]["template"]
        return words_lib.embedded(wordings, self._tower, encode, self._words, template)

    def scores(
        self,
        recordings: Sequence[Recording],
        windows: Sequence[Window],
        encoded: Summary,
        head: Head,
    ) -> list[Scores]:
        """What a head says of recordings that are encoded already."""
        score = heads_lib.score(head, encoded)
        probability = heads_lib.probability(score, head.slope, head.offset)
        threshold = np.array([math.nan if t is None else t for t in head.threshold])
        kind = "logits" if head.protocol == "linear_probe" else "cosines"
        meaning = (
            f"scores are {kind}; probabilities and thresholds are of {head.records:,} validation "
            f"records of {head.dataset}, and hold for patients like those"
        )
        figures = self._figures(head)
        return [
            Scores(
                recording.name,
                head.task,
                head.protocol,
                list(head.classes),
                list(head.names),
                score[i],
                probability[i],
                threshold,
                figures,
                meaning,
                self.notes(recording, windows[i]),
            )
            for i, recording in enumerate(recordings)
        ]

    def in_words(
        self,
        recordings: Sequence[Recording],
        windows: Sequence[Window],
        encoded: Summary,
        names: Sequence[str],
        embedded: np.ndarray,
    ) -> list[Scores]:
        """What classes in words say of recordings that are encoded already."""
        words, K = self._words, len(names)
        centre = words.arrays.get("centre")
        score = scoring.zero_shot_scores(encoded.embedding, embedded, centre)
        probability = np.full(score.shape, math.nan)
        meaning = "scores are cosines; there is no probability, as no normal class was validated"
        if words.slope is not None:
            normal = words.arrays["normal"][None]
            against = score - scoring.zero_shot_scores(encoded.embedding, normal, centre)
            probability = heads_lib.probability(against, [words.slope] * K, [words.offset] * K)
            meaning = (
                "scores are cosines; the probability is that of the class against a normal ECG, "
                f"both as likely beforehand, as fitted on {words.records:,} validation records of "
                f"{words.dataset} for its own {words.classes} classes; it was not validated for "
                "these words"
            )
        none = np.full(K, math.nan)
        return [
            Scores(
                recording.name,
                "own words",
                "words",
                list(names),
                list(names),
                score[i],
                probability[i],
                none,
                [""] * K,
                meaning,
                self.notes(recording, windows[i]),
            )
            for i, recording in enumerate(recordings)
        ]

    def notes(self, recording: Recording, window: Window) -> list[str]:
        """What a reader of the scores must know of the recording, a sentence each."""
        notes = [*recording.notes, *window.notes]
        missing = [n for n, there in zip(LEADS, window.lead_mask, strict=True) if not there]
        if missing:
            notes.append(
                f"missing, masked: {', '.join(missing)}, which the validation records have"
            )
        return notes

    @functools.cached_property
    def _words(self) -> heads_lib.Words:
        held = self.exported.heads.words if self.exported.heads else None
        return held or heads_lib.Words("", "", "", 0, 0, None, None, "", {})

    @functools.cached_property
    def _tower(self):
        return words_lib.load_tower(self.config, self.exported.config["text_tower"], self._text)

    def windows(
        self, recordings: Sequence[Recording], start: float = 0.0, pad: bool = False
    ) -> list[Window]:
        """What the network is given of each recording.

        Raises:
          UserError: a recording that does not fit the model.
        """
        known = np.isin(LEADS, self.trained_leads)
        windows = []
        for recording in recordings:
            window = recording.window(self.rate, self.seconds, start, pad=pad)
            if unknown := [n for n in recording.leads if n not in self.trained_leads]:
                mask = window.lead_mask & known
                if not mask.any():
                    raise UserError(
                        f"{recording.name} has {', '.join(recording.leads)}; the encoder was "
                        f"trained on {', '.join(self.trained_leads)}"
                    )
                note = f"the encoder was not trained on {', '.join(unknown)}"
                window = Window(np.where(mask, window.ecg, 0), mask, (*window.notes, note))
            if not (window.ecg.any(axis=0) & window.lead_mask).any():
                raise UserError(f"{recording.name}: all leads are flat there")
            windows.append(window)
        return windows

    def encode(self, windows: Sequence[Window]) -> Summary:
        """Features, embeddings and what the heads are given besides, as NumPy arrays: in batches of
        `BATCH`, the last one filled up; one recording by itself."""
        assert self.exported.summarise is not None
        size = 1 if len(windows) == 1 else BATCH
        parts = []
        for first in range(0, len(windows), size):
            rows = [*windows[first : first + size]]
            filled = rows + [rows[-1]] * (size - len(rows))
            ecg, mask = (np.stack([getattr(w, n) for w in filled]) for n in ("ecg", "lead_mask"))
            encoded = self.exported.summarise(ecg, mask)
            parts.append(jax.tree.map(lambda x: np.asarray(x, np.float32)[: len(rows)], encoded))  # noqa: B023
        return jax.tree.map(lambda *columns: np.concatenate(columns), *parts)

    def _figures(self, head: Head) -> list[str]:
        held = self.exported.config.get("figures", {}).get("/".join(head.key), {})
        return [held.get(code, "") for code in head.classes]


def _listed(recordings: Any) -> list[Recording]:
    given = [recordings] if isinstance(recordings, Recording) else list(recordings)
    for item in given:
        if not isinstance(item, Recording):
            raise UserError(
                f"{type(item).__name__} is no recording: ecg_jax.read(PATH) and "
                "ecg_jax.from_array(samples, leads=..., rate=..., units=...) make one"
            )
    if not given:
        raise UserError("no recording")
    return given
