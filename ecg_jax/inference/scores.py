"""What a model says of one recording: a score for each class, and what it may be read as."""

import dataclasses
import math
from typing import Any

import numpy as np

NOT_A_DEVICE = "Research software: not a medical device, not for diagnosis."
PROTOCOLS = {"linear_probe": "linear probe", "zero_shot": "zero-shot", "words": "zero-shot"}


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one recording.

    Attributes:
      recording: its name.
      task: whose classes, such as "super"; "own words" for the caller's.
      protocol: "linear_probe", "zero_shot" (by the model's own prompts) or "words".
      classes: K codes; `names` are the same in words.
      score: float [K], higher for the more likely: logits, or cosines with the class's text. NaN:
        the class could not be learnt.
      probability: float [K]; NaN where there is no calibration. `meaning` says of what.
      threshold: float [K], chosen on validation; NaN where there is none.
      figures: for each class, how well the score tells it: "AUROC 0.91 (0.88-0.94) on ..."; or "".
      meaning: what score and probability are, in a sentence.
      notes: what was done to the recording, a sentence each.
    """

    recording: str
    task: str
    protocol: str
    classes: list[str]
    names: list[str]
    score: np.ndarray
    probability: np.ndarray
    threshold: np.ndarray
    figures: list[str]
    meaning: str
    notes: list[str]

    @property
    def yes(self) -> list[bool | None]:
        """Whether each class's score reaches its threshold; None where there is none."""
        pairs = zip(self.score.tolist(), self.threshold.tolist(), strict=True)
        return [None if math.isnan(s) or math.isnan(t) else s >= t for s, t in pairs]

    @property
    def order(self) -> list[int]:
        """The classes from the most likely on: by probability, or by score without one."""
        by = self.score if np.isnan(self.probability).all() else self.probability
        return np.argsort(np.where(np.isnan(by), np.inf, -by), kind="stable").tolist()

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold; None where there is no number."""
        columns = zip(
            self.classes,
            self.names,
            *(map(_known, x.tolist()) for x in (self.score, self.probability, self.threshold)),
            self.yes,
            self.figures,
            strict=True,
        )
        keys = ("class", "name", "score", "probability", "threshold", "yes", "figures")
        return {
            "task": self.task,
            "protocol": self.protocol,
            "meaning": self.meaning,
            "classes": [dict(zip(keys, row, strict=True)) for row in columns],
        }

    def __str__(self) -> str:
        width = max(map(len, self.names))
        head = f"{self.recording}: {self.task}, {PROTOCOLS[self.protocol]}"
        lines = [head, f"  {'':<{width}}  {'score':>7}  {'probability':>11}  yes"]
        for k in self.order:
            said = {True: "yes", False: "no", None: "-"}[self.yes[k]]
            numbers = f"{figure(self.score[k]):>7}  {figure(self.probability[k]):>11}"
            lines.append(f"  {self.names[k]:<{width}}  {numbers}  {said}")
        return "\n".join([*lines, f"  {self.meaning}", *(f"  {note}" for note in self.notes)])


def figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{round(value, 3) + 0.0:.3f}"


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
