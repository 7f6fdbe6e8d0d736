"""A page's content with every section, and hostile text in it."""

import dataclasses
import math

import numpy as np

from ecg_jax.evaluation.figures import bootstrap, metrics, results
from ecg_jax.evaluation.figures.predictions import Predictions
from ecg_jax.report import Content, Embedding, PromptMap, Sample, Waves

EVIL = '<script>alert("planted")</script>"\'&<img src=x onerror=alert(1)>\x00\u202e'
LEADS = np.ones(12, bool)
CLASSES = ["CD", "MI", "NORM", "RARE<i>"]


def rows(y, score, patient, **about) -> list[results.Row]:
    extras = {name: about.pop(name) for name in ("rule", "fraction", "condition", "seed")}
    threshold = metrics.best_f1_threshold(y, score)
    made = results.rows(
        y,
        score,
        threshold,
        patient,
        classes=CLASSES,
        split="test",
        draws=bootstrap.draws(patient, 20),
        **about,
    )
    return [{**row, **extras, "choice": f"choice <{about['encoder']}>"} for row in made]


def content() -> Content:
    """A page with every section."""
    rng = np.random.default_rng(0)
    N, K = 60, len(CLASSES)
    y = rng.random((N, K)) < 0.4
    y[:, 3] = False  # a class without positives
    patient = np.array([f"p{i // 2}" for i in range(N)])
    record = np.array([f"r{i}" for i in range(N)])
    table, predictions, validation = [], [], []
    for protocol, fraction in (("zero_shot", None), ("linear_probe", 0.05), ("linear_probe", 1.0)):
        for encoder, noise in (("trained", 0.7), ("random", 3.0)):
            score = (y + noise * rng.standard_normal(y.shape)).astype(np.float32)
            score[:, 3] = np.nan
            of = dict(task="super", dataset="ptb_xl", protocol=protocol, encoder=encoder)
            kind = dict(rule="corrected", fraction=fraction, condition="")
            for seed in range(2):
                table += rows(y, score, patient, **of, **kind, seed=seed)
            table += rows(y, score, patient, **of, **{**kind, "rule": "paper"}, seed=0)
            if fraction:
                table += rows(y, score, patient, **of, **{**kind, "condition": "6 leads"}, seed=0)
            cut = np.zeros(K)
            made = Predictions(
                **of, **kind, classes=CLASSES, record_id=record, patient_id=patient,
                y=y, score=score, threshold=cut,
            )  # fmt: skip
            predictions.append(made)
            if protocol == "zero_shot":
                validation.append(made)
    for metric, value in (("recall@5", 0.4), ("median_rank", math.nan)):
        common = dict(task="reports", dataset="ptb_xl", split="test", protocol="retrieval")
        ends = dict(value=value, ci_low=math.nan, ci_high=None, n=N)
        table.append(
            {**common, "encoder": "trained", "label": "ecg_to_report", "metric": metric, **ends}
        )
    ecg = rng.integers(-800, 800, (1000, 12)).astype(np.int16)
    mask = np.ones(12, bool)
    mask[3] = False
    scores = [(EVIL, 0.5), ("x", math.nan)]
    of = ("ptb_xl", "super")
    sample = Sample(*of, "worst", EVIL, ecg, 100, mask, EVIL, [EVIL], "zero_shot", scores)
    sample = dataclasses.replace(sample, prompts=[(EVIL, 0.5), ("st depression.", -0.25)])
    kinds = rng.integers(0, 4, (2, 1000)).astype(np.uint8)
    known = np.arange(1000) > 100
    waves = Waves("ludb", "waves", "worst", EVIL, ecg[:, 1], 100, *kinds, known, EVIL)
    similarity = rng.standard_normal((5, K))
    similarity[0, 1] = math.nan
    written_for = [*CLASSES, "MI"]
    prompts = PromptMap(*of, CLASSES, [EVIL, "b", "c", "d", "e"], written_for, similarity)
    xy, label = rng.standard_normal((N, 2)), rng.integers(-1, K, N)
    return Content(
        title=f"Report {EVIL}",
        description=[("run", EVIL), (EVIL, "x")],
        limits=[f"stand-in {EVIL}"],
        rows=table,
        compared=[
            dict(dataset="ptb_xl", task="super", protocol="linear_probe", rule="corrected",
                 fraction=1.0, encoder="trained", against=name, value=gain, p=0.002, p_holm=0.004,
                 metric=f"{metric}_gain")
            for name, metric, gain in (
                ("random", "auroc", 0.125), ("random", "auroc", 0.135), (EVIL, "auroc", -0.1),
                ("random", "miou", 0.05),
            )
        ],
        predictions=predictions,
        validation=validation,
        published=[
            dict(task="super", protocol="zero_shot", rule="paper", source=EVIL, metric="auroc",
                 value=0.546, note=f"chosen on test {EVIL}"),
            dict(task="super", protocol="zero_shot", label="MI", source="ETP, table 3",
                 metric="auroc", value=0.123),
        ],
        history=[
            {"step": 1, "loss": 2.0},
            {"step": 2, "loss": math.nan},
            {"step": 2, "validation/zero_shot_super": 0.7},
        {"step": 3, "validation/zero_shot_super": 0.6},
        ],
        prompts=[prompts],
        embeddings=[Embedding(*of, xy, label, CLASSES, EVIL)],
        samples=[sample, dataclasses.replace(sample, kind="best", ecg=ecg[:300], report="")],
        waves=[waves],
    )  # fmt: skip
