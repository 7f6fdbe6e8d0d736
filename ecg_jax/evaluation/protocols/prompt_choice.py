"""Which prompts serve which class, by validation figures alone.

One prompt set is chosen for a whole task (`zero_shot.choose_prompt_set`): what these tables say of
a single class rests on that class's few positives, and is shown to improve the wordings by.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures import metrics
from ecg_jax.evaluation.protocols import zero_shot


def set_auroc(val_scores: Mapping[str, np.ndarray], y_val: np.ndarray) -> dict[str, np.ndarray]:
    """AUROC float64 [K] of each prompt set's scores [N, K] on validation; NaN if undefined."""
    return {name: metrics.auroc(y_val, scores) for name, scores in val_scores.items()}


def wording_auroc(
    ecg_embedding_val: np.ndarray,
    wording_embeddings: Mapping[str, np.ndarray],
    y_val: np.ndarray,
) -> dict[str, np.ndarray]:
    """AUROC of every single wording for its own class on validation.

    Args:
      ecg_embedding_val: float [N, D], in the joint space.
      wording_embeddings: class -> float [P, D] in the joint space, in the order of the labels.
      y_val: bool [N, K].

    Returns:
      class -> float64 [P]; NaN for a class without positives or negatives on validation.

    Raises:
      UserError: classes and labels that do not fit each other, widths that differ.
    """
    y_val = np.asarray(y_val)
    if y_val.ndim != 2 or y_val.shape[1] != len(wording_embeddings):
        raise UserError(
            f"labels of shape {y_val.shape} do not fit {len(wording_embeddings)} classes of prompts"
        )
    scores = {c: zero_shot.scores(ecg_embedding_val, e) for c, e in wording_embeddings.items()}
    return {
        name: metrics.auroc(np.repeat(y_val[:, [k]], score.shape[1], axis=1), score)
        for k, (name, score) in enumerate(scores.items())
    }


def choice_table(
    auroc: Mapping[str, np.ndarray], classes: Sequence[str], positives: Sequence[int]
) -> str:
    """A line for each class: its positives on validation, every set's AUROC, and the best set.

    Args:
      auroc: prompt set -> float [K], from `set_auroc`.
      positives: [K], how many validation records have each class.

    Raises:
      UserError: no set, or figures that do not fit the classes.
    """
    if not auroc or any(np.shape(v) != (len(classes),) for v in (*auroc.values(), positives)):
        raise UserError("every prompt set needs one AUROC for each class")
    macro = {name: float(metrics.macro(values)) for name, values in auroc.items()}
    first = max(map(len, [*classes, "macro"])) + 2
    width = max(map(len, [*auroc, "0.000"])) + 2
    head = "".join(f"{name:>{width}}" for name in auroc)
    lines = [f"{'':<{first}}{'positives':>9}{head}  best"]
    for k, code in enumerate(classes):
        of_class = {name: float(values[k]) for name, values in auroc.items()}
        lines.append(_line(code, str(positives[k]), of_class, first, width))
    lines.append(_line("macro", "", macro, first, width))
    if known := {name: value for name, value in macro.items() if not math.isnan(value)}:
        lines.append(f"serves the task: {max(known, key=known.__getitem__)} (chosen on validation)")
    return "\n".join(lines)


def wording_table(
    wordings: Mapping[str, Sequence[str]], auroc: Mapping[str, np.ndarray], positives: Sequence[int]
) -> str:
    """Every class's wordings, best first, with their AUROC on validation.

    Raises:
      UserError: wordings and figures that do not fit each other.
    """
    lines = []
    for (code, texts), count in zip(wordings.items(), positives, strict=True):
        if code not in auroc or len(auroc[code]) != len(texts):
            raise UserError(f"{code}: one AUROC for each of its {len(texts)} wordings is needed")
        lines.append(f"{code}, {count} positives")
        order = sorted(range(len(texts)), key=lambda i: -np.nan_to_num(auroc[code][i], nan=-1.0))
        lines += [f"  {_figure(float(auroc[code][i]))}  {texts[i]}" for i in order]
    return "\n".join(lines)


def _line(label: str, count: str, values: dict[str, float], first: int, width: int) -> str:
    known = {name: value for name, value in values.items() if not math.isnan(value)}
    best = max(known, key=known.__getitem__) if known else "-"
    cells = "".join(f"{_figure(value):>{width}}" for value in values.values())
    return f"{label:<{first}}{count:>9}{cells}  {best}"


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
