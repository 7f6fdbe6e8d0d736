"""Figures of several predictions together: calibration, which is fitted on validation, and whether
one encoder is better than the others on the same patients."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ecg_jax.evaluation.figures import calibration, paired, results
from ecg_jax.evaluation.figures.predictions import Predictions
from ecg_jax.evaluation.figures.results import MACRO, Row

# The metric of a comparison's row, which has `against`, `p` and `p_holm`: of other metrics, too,
# it ends so.
GAIN = "auroc_gain"

Group = tuple[str, str, str, str, float | None]


def group(p: Predictions) -> Group:
    """What predictions of several encoders have in common that can be compared."""
    return p.dataset, p.task, p.protocol, p.rule, p.fraction


def group_of(row: Row) -> Group:
    """The same of a row of results.json."""
    return row["dataset"], row["task"], row["protocol"], row["rule"], row["fraction"]


def calibrated(predictions: Sequence[Predictions]) -> list[Row]:
    """`calibration.rows` of those test predictions that have their like on validation."""
    fitted = {p.key: p for p in predictions if p.split == "validation"}
    found = []
    for p in predictions:
        like = fitted.get(p._replace(split="validation").key)
        if p.split == "test" and like is not None:
            of = p.y, p.score, like.y, like.score
            rows = calibration.rows(*of, classes=p.classes, **_where(p))
            found += map(results.ordered, rows)
    return found


def compared(predictions: Sequence[Predictions], first: str) -> list[Row]:
    """A row for each encoder that `first` is compared with, by `paired.compare`, of each task,
    protocol and rule but the paper's, with all labels or, of fine-tuning, each share of them; the p
    values of these rows together are corrected by `paired.holm`.
    Left out are encoders that were judged on other records, and where no class can be compared.
    """
    found = []
    for own, others in _pairs(predictions, first):
        of = [paired.compare(own.y, own.score, p.score, own.patient_id) for p in others]
        corrected = paired.holm([difference.p for difference in of])
        for p, difference, p_holm in zip(others, of, corrected, strict=True):
            if not difference.classes:
                continue
            figures = {"value": difference.value, "ci_low": np.nan, "ci_high": np.nan}
            tested = {"against": p.encoder, "p": difference.p, "p_holm": float(p_holm)}
            note = f"paired permutation test, {paired.PERMUTATIONS:,} permutations; Holm's of "
            note += f"{len(others)}"
            extras = {"n": len(p.y), "positives": difference.classes, "chance": 0.0, "note": note}
            row = _where(own) | {"label": MACRO, "metric": GAIN} | figures | extras | tested
            found.append(results.ordered(row))
    return found


def sentence(row: Row) -> str:
    """A comparison's row in words."""
    better = "better" if row["value"] >= 0 else "worse"
    what = f"{row['encoder']} {better} than {row['against']}"
    metric = "" if row["metric"] == GAIN else f" {row['metric'].removesuffix('_gain')}"
    return f"{what}: {row['value']:+.3f}{metric}, p = {row['p_holm']:.3f}"


def is_gain(row: Row) -> bool:
    """Whether a row says how much better an encoder is than another one."""
    return row["metric"].endswith("_gain")


def _pairs(
    predictions: Sequence[Predictions], first: str
) -> Iterator[tuple[Predictions, list[Predictions]]]:
    groups: dict[Group, dict[str, Predictions]] = {}
    for p in predictions:
        few = p.fraction is not None and p.fraction < 1 and p.protocol != "finetune"
        if p.split == "test" and p.rule != "paper" and not (p.condition or few):
            groups.setdefault(group(p), {})[p.encoder] = p
    for by_encoder in groups.values():
        own = by_encoder.pop(first, None)
        if own is not None and by_encoder:
            same = [p for p in by_encoder.values() if np.array_equal(p.record_id, own.record_id)]
            yield own, same


def _where(p: Predictions) -> dict[str, Any]:
    names = ("task", "dataset", "split", "protocol", "encoder", "rule", "fraction", "condition")
    return {name: getattr(p, name) for name in names} | {"choice": p.note}
