"""What a run's report shows, from the run's folder and its evaluated encoder."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecg_jax.data.records import Records
from ecg_jax.evaluation import predictions, published, results, tasks, zero_shot
from ecg_jax.evaluation.predictions import Predictions
from ecg_jax.evaluation.report import projection
from ecg_jax.evaluation.report.content import Content, Embedding, PromptMap, Sample
from ecg_jax.evaluation.results import Row
from ecg_jax.evaluation.subject import Subject
from ecg_jax.text import prompts as text_prompts

SAMPLES = (("typical", 2), ("best", 2), ("worst", 2))
PROMPTS = 3  # of the highest score, beside an ECG


def content(subject: Subject, folder: Path, saved: dict[str, Any]) -> Content:
    """Args:
    subject: the trained encoder, on the dataset that was evaluated last.
    folder: with results.json, predictions.npz and metrics.jsonl.
    saved: the run's config.json.
    """
    experiment = subject.material.experiment
    config = experiment.config
    rows = results.read(folder / "results.json")
    scored = predictions.read(folder / "predictions.npz")
    asked = [task for task in config.evaluate.tasks if subject.reads_text]
    return dataclasses.replace(
        several(f"{config.method.upper()} on {experiment.test.dataset}", {folder: saved}, rows),
        prompts=[prompt_map(subject, task) for task in asked],
        embedding=embedding(subject, config.evaluate.tasks[0]),
        samples=samples(subject, config.evaluate.tasks[0], scored),
    )


def several(title: str, runs: Mapping[Path, dict[str, Any]], rows: Sequence[Row]) -> Content:
    """What several runs' folders hold: figures of all seeds, curves of the first run.

    Args:
      runs: folder -> its config.json.
    """
    (first, saved), *_ = runs.items()
    scored, tower = predictions.read(first / "predictions.npz"), saved["text_tower"]
    limits = ["Research software: not a medical device, not for diagnosis."]
    if tower["stand_in"]:
        limits.append(f"The text tower is a stand-in: {tower['note']}.")
    most = max((row["n"] for row in rows if row["split"] == "test"), default=0)
    limits.append(f"At most {most:,} test records: the intervals say how much that tells.")
    return Content(
        title=title,
        description=describe(first, saved),
        limits=limits,
        rows=rows,
        predictions=[p for p in scored if p.split == "test"],
        validation=[p for p in scored if p.split == "validation"],
        published=papers(),
        history=[row for folder, run in runs.items() for row in _history(folder, run)],
    )


def describe(folder: Path, saved: dict[str, Any]) -> list[tuple[str, str]]:
    config, tower = saved["config"], saved["text_tower"]
    splits = (f"{name} {digest[:12]}" for name, digest in saved["splits"].items())
    packages = (f"{name} {version}" for name, version in saved["packages"].items())
    return [
        ("run", folder.name),
        ("method", config["method"]),
        ("trained on", f"{config['dataset']}, {config['rate']} Hz, seed {config['seed']}"),
        ("text tower", tower["note"]),
        ("splits (sha256)", ", ".join(splits)),
        ("code", f"ecg_jax {saved['ecg_jax']}, commit {saved['commit']}"),
        ("device", saved["device"]),
        ("packages", ", ".join(packages)),
    ]


def papers() -> list[dict[str, Any]]:
    """Published figures; the field's benchmark judges all records, as the corrected rule does."""
    rules = {"paper": "paper", "benchmark": "corrected"}
    return [row | {"source": _source(row), "rule": rules[row["rule"]]} for row in published.load()]


def _source(row: dict[str, Any]) -> str:
    """`ETP, table 1`; `SimCLR (METS, table 1)`; `MERL, 10 %`."""
    own = row["encoder"] in row["source"]
    name = row["source"] if own else f"{row['encoder']} ({row['source']})"
    if row["rule"] == "benchmark" and own:
        name = row["encoder"]
    return name if row["fraction"] in (None, 1) else f"{name}, {row['fraction']:.0%}"


def _history(folder: Path, saved: dict[str, Any]) -> list[dict[str, Any]]:
    path, seed = folder / "metrics.jsonl", saved["config"]["seed"]
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) | {"seed": seed} for line in lines]


def prompt_map(subject: Subject, task: str) -> PromptMap:
    """Mean cosine of each clinical prompt and the validation records of each class."""
    split = subject.material.experiment.validation
    ecg, y = subject.encode(split).embedding, split.labels[task]
    wordings = subject.material.prompts(task)["clinical"]
    texts = [(name, text) for name, (texts, _) in wordings.items() for text in texts]
    embedded = np.concatenate([subject.embed(x) for _, x in wordings.values()])
    cosine = zero_shot.scores(ecg, embedded)
    counts = y.sum(axis=0)
    similarity = np.full((len(texts), y.shape[1]), np.nan)
    similarity[:, counts > 0] = (cosine.T @ y / np.maximum(counts, 1))[:, counts > 0]
    return PromptMap(
        task=task,
        classes=split.classes[task],
        prompts=[text for _, text in texts],
        prompt_class=[name for name, _ in texts],
        similarity=similarity,
        note="validation records; this project's wordings",
    )


def embedding(subject: Subject, task: str) -> Embedding:
    """A t-SNE of the test records' features."""
    test = subject.material.experiment.test
    rows = np.random.default_rng(0).permutation(len(test))[: projection.MOST]
    x, y = subject.encode(test).features[rows], test.labels[task][rows]
    spread = x.std(axis=0)
    varies = spread > 1e-6 * np.abs(x).max()
    x = (x[:, varies] - x[:, varies].mean(axis=0)) / spread[varies]
    return Embedding(
        xy=projection.tsne(x),
        label=np.where(y.sum(axis=1) == 1, y.argmax(axis=1), -1),
        classes=test.classes[task],
        note=f"t-SNE of the frozen features of {len(rows):,} test records, {task}",
    )


def samples(subject: Subject, task: str, scored: Sequence[Predictions]) -> list[Sample]:
    """Test records that the trained encoder's zero-shot scores (or the probe's) rank well, badly
    and in between: by the mean place of a record's true classes among all."""
    test, config = subject.material.experiment.test, subject.material.experiment.config.evaluate
    section = tasks.section(test.dataset, task)
    entries = text_prompts.load_prompts(config.prompts or None)[section]
    names = {code: f"{entries[code]['name']} ({code})" for code in test.classes[task]}
    wanted = dict(dataset=test.dataset, task=task, split="test", rule="corrected", condition="")
    of = [
        p
        for protocol in ("zero_shot", "linear_probe")
        for p in scored
        if p.protocol == protocol and p.encoder == subject.name and p.fraction in (None, 1.0)
        if all(getattr(p, name) == value for name, value in wanted.items())
    ]
    if not of:
        return []
    chosen, row = of[0], {name: i for i, name in enumerate(test.record_id)}
    place = mean_place(chosen.y, chosen.score)
    order = np.argsort(place, kind="stable")
    middle = len(order) // 2
    ranges = {"best": order, "worst": order[::-1], "typical": order[middle:]}
    return [
        _sample(kind, test, row[chosen.record_id[i]], chosen, int(i), float(place[i]), names)
        for kind, count in SAMPLES
        for i in ranges[kind][:count]
    ]


def mean_place(y: np.ndarray, score: np.ndarray) -> np.ndarray:
    """float64 [N]: the mean rank, from 1, of a record's true classes by its scores, each class's
    scores standardised over the records so that none leads all of them."""
    spread = np.where(np.isnan(score).all(axis=0), 1, score.std(axis=0))
    z = (score - score.mean(axis=0)) / np.maximum(spread, 1e-12)
    z = np.where(np.isnan(z), -np.inf, z)
    rank = 1 + (z[:, None, :] > z[:, :, None]).sum(axis=2)
    return (rank * y).sum(axis=1) / np.maximum(y.sum(axis=1), 1)


def _sample(
    kind: str,
    test: Records,
    row: int,
    p: Predictions,
    i: int,
    place: float,
    names: dict[str, str],
) -> Sample:
    top = np.argsort(-np.nan_to_num(p.score[i], nan=-np.inf), kind="stable")[:PROMPTS]
    return Sample(
        kind=kind,
        record_id=str(test.record_id[row]),
        ecg=np.asarray(test.ecg[row : row + 1])[0, : test.length[row]],
        rate=test.rate,
        lead_mask=test.lead_mask[row],
        report=test.report[row],
        labels=[name for name, has in zip(p.classes, p.y[i], strict=True) if has],
        prompts=[(names[p.classes[k]], float(p.score[i, k])) for k in top],
        note=f"mean place of the true classes {place:.1f} of {len(p.classes)}",
    )
