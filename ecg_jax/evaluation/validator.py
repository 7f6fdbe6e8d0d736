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

# What may choose the checkpoint, besides one task: the mean over all tasks, or nothing.
MEAN, LAST = "mean", "last"


class Validator:
    """Macro AUROC of the config's tasks on validation, zero-shot and of nearest neighbours, and
    whether the embeddings have collapsed."""

    def __init__(self, experiment: Experiment):
        config, split = experiment.config.evaluate, experiment.validation
        if not config.tasks:
            raise UserError("config.evaluate.tasks is empty: name a task to watch while training")
        if config.select not in (MEAN, LAST, *config.tasks):
            raise UserError(
                f"--config.evaluate.select={config.select} is neither {MEAN} nor {LAST} nor one of "
                f"--config.evaluate.tasks={','.join(config.tasks)}"
            )
        self._material = Material(experiment)
        self._reads_text = experiment.tower is not None
        self._neighbours: dict[str, Records] = {}
        tasks.check(split.dataset, split.classes, config.tasks)
        for task in config.tasks if self._reads_text else ():
            self._material.prompts(task)
        for task in self._choosing:
            y = judged(split, task, "corrected").y
            if not mixed(y).any():
                raise UserError(
                    f"no class of {task} has positives and negatives among the {len(y)} labelled "
                    f"validation records of {split.dataset}: no checkpoint could be chosen by it"
                )

    @property
    def _choosing(self) -> list[str]:
        """The tasks whose figures choose the checkpoint, or the first one, which is watched."""
        config = self._material.experiment.config.evaluate
        if config.select == MEAN:
            return list(config.tasks)
        return [config.tasks[0] if config.select == LAST else config.select]

    def __call__(self, params: Any, state: Any, epoch: int) -> dict[str, float]:
        """Figures at the end of an epoch, from 1; the checkpoint with the highest `select` is the
        one that is evaluated. It is the zero-shot figure or, without a text side, that of the
        nearest neighbours: of the task `evaluate.select`, or the mean over all (`mean`). With
        `last` it is the epoch, so that the last checkpoint is the one."""
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
            for task in self._choosing:
                scores[f"knn_{task}"] = self._knn(subject, task)
        by = "zero_shot" if self._reads_text else "knn"
        chosen = float(np.mean([scores[f"{by}_{task}"] for task in self._choosing]))
        return scores | {"select": float(epoch) if config.select == LAST else chosen}

    def _zero_shot(self, subject: Subject, task: str, embedding: np.ndarray) -> float:
        """The best prompt set's."""
        rows, y = judged(self._material.experiment.validation, task, "corrected")
        by_set = {
            name: zero_shot.scores(embedding[rows], classes)
            for name, classes in subject.classes(task).items()
        }
        return max(zero_shot.prompt_set_auroc(by_set, y).values())

    def _knn(self, subject: Subject, task: str) -> float:
        """That of the best k among at most `evaluate.neighbours` training records that have a label
        of the task, drawn once."""
        experiment = self._material.experiment
        config = experiment.config
        if task not in self._neighbours:
            rows, _ = judged(experiment.train, task, "corrected")
            drawn = np.random.default_rng(config.seed).permutation(rows)
            near = experiment.train.take(np.sort(drawn[: config.evaluate.neighbours]))
            self._neighbours[task] = near
        rows, y = judged(experiment.validation, task, "corrected")
        x = subject.encode(experiment.validation).features[rows]
        near = self._neighbours[task]
        fitted = knn.fit(subject.encode(near).features, near.labels[task], x, y)
        return max(auroc for _, auroc in fitted.path)
