"""What an encoder's predictions, features and embeddings are worth: rows of results.json."""

import itertools
from typing import Any

import numpy as np

from ecg_jax.evaluation import challenge, identify, scoring
from ecg_jax.evaluation.figures import bootstrap, metrics, results
from ecg_jax.evaluation.figures.predictions import Predictions
from ecg_jax.evaluation.papers import single_label, windows
from ecg_jax.evaluation.protocols import retrieval, zero_shot
from ecg_jax.evaluation.stand_ins import RandomHeads
from ecg_jax.evaluation.subject import Subject

NULL = "random heads"


def _of_paper(p: Predictions) -> str:
    """What the records of the papers' rule are."""
    if (p.dataset, p.task) == windows.WHERE:
        return "windows, each with its most serious class of beat"
    return single_label.SINGLE


def rows(predictions: Predictions, *, paper: str, draws: int) -> list[results.Row]:
    """Figures of the test records: the corrected rule's, or those of a paper, "etp" or "mets"."""
    p = predictions
    where: dict[str, Any] = dict(task=p.task, dataset=p.dataset, split="test", protocol=p.protocol)
    where |= dict(encoder=p.encoder, classes=p.classes)
    if p.rule == "paper" and paper == "mets":
        chosen, note = single_label.mets_set(p.y, p.record_id, what=_of_paper(p))
        those = (p.y[chosen], p.score[chosen], p.patient_id[chosen])
        found = single_label.mets_rows(*those, draws=draws, records=note, **where)
    elif p.rule == "paper":
        threshold = None if p.protocol == "zero_shot" else p.threshold
        where["what"] = _of_paper(p)
        found = single_label.etp_rows(p.y, p.score, threshold, p.patient_id, draws=draws, **where)
    else:
        drawn = bootstrap.draws(p.patient_id, draws)
        found = results.rows(p.y, p.score, p.threshold, p.patient_id, draws=drawn, **where)
        if p.task == challenge.TASK:
            found.append(challenge.row(p, drawn, **where))
    extras = dict(rule=p.rule, fraction=p.fraction, condition=p.condition, choice=p.note)
    return [row | extras for row in found]


def null_rows(subject: Subject) -> list[results.Row]:
    """What zero-shot reaches by chance: macro AUROC on the test split of `evaluate.null_draws`
    random heads over the random encoder's features, each with prompts (and temperatures) chosen on
    validation as the trained encoder's are; and of one prompt set that nobody chose.

    A row's value is the mean over the draws, its interval holds 95 % of them.
    """
    experiment = subject.material.experiment
    config = experiment.config.evaluate
    asked = [p for p in ("zero_shot", "zero_shot_reports") if p in config.protocols]
    if not (config.null_draws and asked and subject.reads_text and "corrected" in config.rules):
        return []
    drawn: dict[tuple[str, str, str], list[float]] = {}
    for draw in range(config.null_draws):
        rest = (subject.material, subject.params, subject.state)
        heads = RandomHeads(NULL, *rest, of=subject, draw=draw)
        for task, protocol in itertools.product(config.tasks, asked):
            rows, y = scoring.judged(experiment.test, task, "corrected")
            scored = {}
            if protocol == "zero_shot":
                fitted = scoring.fit_zero_shot(heads, task, "corrected")
                embedding = heads.encode(experiment.test).embedding
                fixed = zero_shot.scores(embedding, heads.classes(task)["report"])
                scored = {NULL: fitted.score(experiment.test), f"{NULL}, fixed prompts": fixed}
            elif heads.bank is not None:
                fitted = scoring.fit_zero_shot_reports(heads, task)
                scored = {NULL: fitted.score(experiment.test)}
            for name, score in scored.items():
                auroc = float(metrics.macro(metrics.auroc(y, score[rows])))
                drawn.setdefault((task, protocol, name), []).append(auroc)
    table = []
    for (task, protocol, name), values in drawn.items():
        low, high = np.quantile(values, (0.025, 0.975))
        rows, y = scoring.judged(experiment.test, task, "corrected")
        where = (task, experiment.test.dataset, "test", protocol, name, results.MACRO, "auroc")
        figures = (float(np.mean(values)), float(low), float(high), len(rows))
        row = dict(zip(results.COLUMNS, (*where, *figures), strict=True))
        note = f"{NULL}: mean and 95 % of {len(values)} draws"
        extras = dict(positives=int(y.any(axis=0).sum()), chance=0.5, note=note, choice="")
        table.append(row | extras | dict(rule="corrected", fraction=None, condition=""))
    return table


def identification_rows(subject: Subject) -> list[results.Row]:
    """Rank-1 and rank-5 of the test patients and of all of the dataset's, by whole records and by
    crops of them; none where it is not asked for.

    Raises:
      UserError: no patient has two records, or see `identify.check_known` and `crop`.
    """
    experiment = subject.material.experiment
    if identify.PROTOCOL not in experiment.config.evaluate.protocols:
        return []
    print(f"{subject.name}, {identify.PROTOCOL}", flush=True)
    splits = {"train": experiment.train, "validation": experiment.validation}
    splits["test"] = experiment.test
    table = []
    for split, (records, patients) in identify.galleries(splits).items():
        trained_on = len(set(patients) & set(experiment.train.patient_id))
        half = len(records) // 2
        gap = identify.apart(records[:half], records[half:])
        seen = f"{trained_on} of {len(patients)} patients were in the pre-training; "
        note = gap if subject.name == "random" else seen + gap
        for condition, cut in identify.CUTS.items():
            made = [cut(part) for part in records]
            x = np.concatenate([subject.encode(part).features for part in made])
            table += identify.rows(
                identify.ranks(*np.split(x, 2)),
                patients,
                dataset=experiment.test.dataset,
                split=split,
                encoder=subject.name,
                condition=condition,
                draws=experiment.config.evaluate.draws,
                note=note,
            )
            for part in made:
                subject.forget(part)
    return table


def retrieval_rows(subject: Subject) -> list[results.Row]:
    """ECG to report and report to ECG, on the test split; none without a text side or reports."""
    experiment = subject.material.experiment
    if not (subject.reads_text and any(experiment.test.report)):
        return []
    test, (texts, row) = experiment.test, subject.material.reports
    return retrieval.rows(
        subject.encode(test).embedding,
        subject.embed(texts),
        row,
        test.patient_id,
        dataset=test.dataset,
        split="test",
        encoder=subject.name,
        draws=experiment.config.evaluate.draws,
    )
