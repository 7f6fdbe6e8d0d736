"""Zero-shot classification: a record's class is the prompt that its embedding lies nearest to.

ETP (section 2.2) and METS score a class by the cosine of the ECG's embedding and that of a text
prompt naming the class. Several wordings of a class are averaged on the unit sphere, as CLIP does
(Radford et al. 2021, section 3.1.4).
"""

from collections.abc import Mapping

import numpy as np

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures import metrics


def class_embeddings(prompt_embeddings: Mapping[str, np.ndarray]) -> np.ndarray:
    """One unit vector per class, in the mapping's order: float32 [K, D].

    Args:
      prompt_embeddings: class -> float [P, D], the embeddings of its prompts in the joint space. P
        may differ between classes.

    Raises:
      UserError: no class, a class without prompts, widths that differ, a vector without direction.
    """
    if not prompt_embeddings:
        raise UserError("zero-shot needs at least one class with a prompt")
    rows = []
    for name, embedding in prompt_embeddings.items():
        embedding = np.asarray(embedding)
        if embedding.ndim != 2 or not len(embedding):
            raise UserError(f"class {name!r} needs prompt embeddings [P, D], not {embedding.shape}")
        rows.append(unit(unit(embedding, f"a prompt of class {name!r}").mean(0), f"{name!r}"))
    widths = sorted({row.shape[0] for row in rows})
    if len(widths) > 1:
        raise UserError(f"prompt embeddings differ in width: {widths}")
    return np.stack(rows).astype(np.float32)


def scores(ecg_embedding: np.ndarray, class_embedding: np.ndarray) -> np.ndarray:
    """Cosine of every record [N, D] with every class [K, D]: float32 [N, K].

    Raises:
      UserError: widths that differ, a vector without direction (zero or not finite).
    """
    ecg_embedding, class_embedding = np.asarray(ecg_embedding), np.asarray(class_embedding)
    if ecg_embedding.ndim != 2 or ecg_embedding.shape[1:] != class_embedding.shape[1:]:
        raise UserError(
            f"ECG embeddings {ecg_embedding.shape} and class embeddings {class_embedding.shape} "
            "are not of one joint space"
        )
    cosine = unit(ecg_embedding, "a record's") @ unit(class_embedding, "a class's").T
    return cosine.astype(np.float32)


def centred(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Unit vectors [N, D] less a mean [D], of length one again: float32 [N, D]. What all records
    (or all reports) share tells none from another, and the two spaces' means lie apart (I0T, An et
    al. 2024, arXiv 2412.14384).

    Raises:
      UserError: a vector without direction, before or after.
    """
    return unit(unit(x, "a record's or text's") - mean, "a centred").astype(np.float32)


def prompt_set_auroc(val_scores: Mapping[str, np.ndarray], y_val: np.ndarray) -> dict[str, float]:
    """Macro AUROC of each prompt set's scores [N, K] on the validation split."""
    return {name: float(metrics.macro(metrics.auroc(y_val, s))) for name, s in val_scores.items()}


def choose_prompt_set(val_scores: Mapping[str, np.ndarray], y_val: np.ndarray) -> str:
    """The prompt set with the highest macro AUROC on validation; of equals, the first.

    One choice for the whole task: a choice for each class would rest on a handful of positives.

    Raises:
      UserError: no prompt set, or no class with both positives and negatives on validation.
    """
    auroc = prompt_set_auroc(val_scores, y_val)
    if not auroc or any(np.isnan(value) for value in auroc.values()):
        raise UserError(
            "prompts cannot be chosen: no prompt set, or no class has positives and negatives "
            "in the validation split"
        )
    return max(auroc, key=auroc.__getitem__)


def unit(x: np.ndarray, what: str) -> np.ndarray:
    """Rows of length one, in float64.

    Raises:
      UserError: a row that is zero or not finite; `what` names it.
    """
    x = np.asarray(x, np.float64)
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    if not (np.isfinite(norm).all() and (norm > 1e-12).all()):
        raise UserError(f"{what} embedding is zero or not finite, so it has no direction")
    return x / norm
