"""The pictures that need a run's encoder and records: prompt maps, maps of records, recordings."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ecg_jax.data.records import Records
from ecg_jax.evaluation import delineate, tasks
from ecg_jax.evaluation.delineate import Found
from ecg_jax.evaluation.figures.predictions import Predictions
from ecg_jax.evaluation.protocols import zero_shot
from ecg_jax.evaluation.subject import Subject
from ecg_jax.report import projection
from ecg_jax.report.content import Embedding, PromptMap, Sample, Waves
from ecg_jax.report.picture_file import Picture
from ecg_jax.text import prompts as text_prompts

SAMPLES = (("typical", 2), ("best", 2), ("worst", 2))
SCORES = 3  # the highest, beside an ECG
WAVES = 3  # records with waves, of a kind


def pictures(subject: Subject, scored: Sequence[Predictions]) -> list[Picture]:
    """Those of every task that the config names.

    Args:
      subject: the trained encoder, on the dataset that is evaluated.
      scored: of the same checkpoint.
    """
    asked = subject.material.experiment.config.evaluate.tasks
    drawn: list[Picture] = [prompt_map(subject, task) for task in asked if subject.reads_text]
    drawn += embeddings(subject, asked)
    return drawn + [sample for task in asked for sample in samples(subject, task, scored)]


def prompt_map(subject: Subject, task: str) -> PromptMap:
    """Mean cosine of each clinical prompt and the validation records of each class."""
    split = subject.material.experiment.validation
    ecg, y = subject.encode(split).embedding, split.labels[task]
    texts, embedded = _wordings(subject, task)
    cosine = zero_shot.scores(ecg, embedded)
    counts = y.sum(axis=0)
    similarity = np.full((len(texts), y.shape[1]), np.nan)
    similarity[:, counts > 0] = (cosine.T @ y / np.maximum(counts, 1))[:, counts > 0]
    return PromptMap(
        dataset=split.dataset,
        task=task,
        classes=split.classes[task],
        prompts=[text for _, text in texts],
        prompt_class=[name for name, _ in texts],
        similarity=similarity,
        note="validation records; this project's wordings",
    )


def waves(found: Found, split: Records) -> list[Picture]:
    """Lead II of the records whose waves an encoder found best and worst."""
    assert split.segments is not None and split.segments_mask is not None
    order = [i for i in np.argsort(found.f1, kind="stable") if np.isfinite(found.f1[i])]
    kinds = [("worst", i) for i in order[:WAVES]]
    kinds += [("best", i) for i in order[::-1][:WAVES] if i not in order[:WAVES]]
    return [
        Waves(
            dataset=split.dataset,
            task=delineate.TASK,
            kind=kind,
            record_id=str(split.record_id[i]),
            ecg=split.ecg[i : i + 1][0, :, delineate.SECOND],
            rate=split.rate,
            true=np.asarray(split.segments[i, :, delineate.SECOND]),
            found=found.segments[i, :, delineate.SECOND],
            known=np.asarray(split.segments_mask[i, :, delineate.SECOND]),
            note=f"{found.encoder}: sample F1 {found.f1[i]:.3f}, the {kind} of {len(order)}",
        )
        for kind, i in kinds
    ]


def _wordings(subject: Subject, task: str) -> tuple[list[tuple[str, str]], np.ndarray]:
    """This project's wordings as (class, text), and their embeddings float32 [P, D]."""
    wordings = subject.material.prompts(task)[text_prompts.ENSEMBLE]
    texts = [(name, text) for name, (texts, _) in wordings.items() for text in texts]
    return texts, np.concatenate([subject.embed(x) for _, x in wordings.values()])


def embeddings(subject: Subject, asked: Sequence[str]) -> list[Embedding]:
    """A t-SNE of the test records' features, with the labels of each task."""
    test = subject.material.experiment.test
    rows = np.random.default_rng(0).permutation(len(test))[: projection.MOST]
    x = subject.encode(test).features[rows]
    spread = x.std(axis=0)
    varies = spread > 1e-6 * np.abs(x).max()
    x = (x[:, varies] - x[:, varies].mean(axis=0)) / spread[varies]
    xy, drawn = projection.tsne(x), []
    for task in asked:
        y = test.labels[task][rows]
        note = f"t-SNE of the frozen features of {len(rows):,} test records"
        if (y.sum(axis=1) > 1).any():
            note += "; one of several labels is coloured by its rarest"
        label = rarest(y)
        drawn.append(Embedding(test.dataset, task, xy, label, test.classes[task], note))
    return drawn


def rarest(y: np.ndarray) -> np.ndarray:
    """int [N]: of each record's labels [N, K] the one that fewest records have; -1 without any."""
    rarity = np.where(y, 1 / np.maximum(y.sum(axis=0), 1), 0.0)
    return np.where(y.any(axis=1), rarity.argmax(axis=1), -1)


def samples(subject: Subject, task: str, scored: Sequence[Predictions]) -> list[Sample]:
    """Test records that the trained encoder's zero-shot scores (or the probe's) rank well, badly
    and in between: by the mean place of a record's true classes among all."""
    test, config = subject.material.experiment.test, subject.material.experiment.config.evaluate
    section = tasks.section(test.dataset, task)
    entries = text_prompts.entries_of(test.classes[task], section, config.prompts or None)
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
    closest = _closest(subject, task)
    ranges = {"best": order, "worst": order[::-1], "typical": order[middle:]}
    drawn = []
    for kind, count in SAMPLES:
        for i in ranges[kind][:count]:
            r = row[chosen.record_id[i]]
            sample = _sample(kind, test, r, chosen, int(i), float(place[i]), names)
            drawn.append(dataclasses.replace(sample, prompts=closest(r)))
    return drawn


def _closest(subject: Subject, task: str) -> Callable[[int], list[tuple[str, float]]]:
    """Of a row of the test records: the wordings nearest to it, with their cosines; none without
    a text side."""
    if not subject.reads_text:
        return lambda row: []
    texts, embedded = _wordings(subject, task)
    records = subject.encode(subject.material.experiment.test).embedding

    def closest(row: int) -> list[tuple[str, float]]:
        cosine = zero_shot.scores(records[row : row + 1], embedded)[0]
        nearest = np.argsort(-cosine, kind="stable")[:SCORES]
        return [(texts[k][1], float(cosine[k])) for k in nearest]

    return closest


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
    top = np.argsort(-np.nan_to_num(p.score[i], nan=-np.inf), kind="stable")[:SCORES]
    return Sample(
        dataset=p.dataset,
        task=p.task,
        kind=kind,
        record_id=str(test.record_id[row]),
        ecg=np.asarray(test.ecg[row : row + 1])[0, : test.length[row]],
        rate=test.rate,
        lead_mask=test.lead_mask[row],
        report=test.report[row],
        labels=[name for name, has in zip(p.classes, p.y[i], strict=True) if has],
        protocol=p.protocol,
        scores=[(names[p.classes[k]], float(p.score[i, k])) for k in top],
        note=f"mean place of the true classes {place:.1f} of {len(p.classes)}",
    )
