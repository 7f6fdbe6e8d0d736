"""Figures on validation, while training."""

from typing import Any

import numpy as np

from ecg_jax.data.records import Records
from ecg_jax.errors import UserError
from ecg_jax.evaluation import tasks
from ecg_jax.evaluation.protocols import knn, zero_shot
from ecg_jax.evaluation.protocols.features import mixed
from ecg_jax.evaluation.scoring import judged
from ecg_jax.evaluation.subject import Material, Subject
from ecg_jax.methods.shared import health
from ecg_jax.run.experiment import Experiment


class Validator:
    """Macro AUROC of the config's tasks on validation, zero-shot and of nearest neighbours, and
    whether the embeddings have collapsed."""

    def __init__(self, experiment: Experiment):
        config, split = experiment.config.evaluate, experiment.validation
        if config.select not in config.tasks:
            raise UserError(
                f"--config.evaluate.select={config.select} is not one of "
                f"--config.evaluate.tasks={','.join(config.tasks)}"
            )
        self._material = Material(experiment)
        self._reads_text = experiment.tower is not None
        self._neighbours: Records | None = None
        tasks.check(split.dataset, split.classes, config.tasks)
        for task in config.tasks if self._reads_text else ():
            self._material.prompts(task)
        y = judged(split, config.select, "corrected").y
        if not mixed(y).any():
            raise UserError(
                f"no class of {config.select} has positives and negatives among the {len(y)} "
                f"labelled validation records of {split.dataset}: no checkpoint could be chosen by "
                "it"
            )

    def __call__(self, params: Any, state: Any, epoch: int) -> dict[str, float]:
        """Figures at the end of an epoch, from 1; `select` is the one that names the best: the
        zero-shot one or, without a text side, that of the nearest neighbours."""
        experiment = self._material.experiment
        config, split = experiment.config.evaluate, experiment.validation
        subject = Subject("trained", self._material, params, state)
        embedding = subject.encode(split).embedding
        rank = health.effective_rank(embedding)
        if rank < health.LEAST_RANK:
            print(
                f"epoch {epoch}: the embeddings of the {len(split)} validation records have "
                f"collapsed, to an effective rank of {rank:.1f} in {embedding.shape[1]} dimensions"
            )
        scores = {"effective_rank": rank}
        if self._reads_text:
            for task in config.tasks:
                scores[f"zero_shot_{task}"] = self._zero_shot(subject, task, embedding)
        if not self._reads_text or (config.knn_every and epoch % config.knn_every == 0):
            scores[f"knn_{config.select}"] = self._knn(subject)
        chosen = "zero_shot" if self._reads_text else "knn"
        return scores | {"select": scores[f"{chosen}_{config.select}"]}

    def _zero_shot(self, subject: Subject, task: str, embedding: np.ndarray) -> float:
        """The best prompt set's."""
        rows, y = judged(self._material.experiment.validation, task, "corrected")
        by_set = {
            name: zero_shot.scores(embedding[rows], classes)
            for name, classes in subject.classes(task).items()
        }
        return max(zero_shot.prompt_set_auroc(by_set, y).values())

    def _knn(self, subject: Subject) -> float:
        """That of the best k among at most `evaluate.neighbours` training records, drawn once."""
        experiment = self._material.experiment
        config = experiment.config
        task = config.evaluate.select
        if self._neighbours is None:
            rows, _ = judged(experiment.train, task, "corrected")
            drawn = np.random.default_rng(config.seed).permutation(rows)
            self._neighbours = experiment.train.take(np.sort(drawn[: config.evaluate.neighbours]))
        rows, y = judged(experiment.validation, task, "corrected")
        x = subject.encode(experiment.validation).features[rows]
        near = self._neighbours
        fitted = knn.fit(subject.encode(near).features, near.labels[task], x, y)
        return max(auroc for _, auroc in fitted.path)
