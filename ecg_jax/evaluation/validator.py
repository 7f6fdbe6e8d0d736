"""Zero-shot figures on validation, while training."""

from typing import Any

from ecg_jax.errors import UserError
from ecg_jax.evaluation import zero_shot
from ecg_jax.evaluation.protocols import judged
from ecg_jax.evaluation.subject import Material, Subject
from ecg_jax.experiment import Experiment


class Validator:
    """Zero-shot macro AUROC of the config's tasks on validation."""

    def __init__(self, experiment: Experiment):
        config, split = experiment.config.evaluate, experiment.validation
        if config.select not in config.tasks:
            raise UserError(
                f"--config.evaluate.select={config.select} is not one of "
                f"--config.evaluate.tasks={','.join(config.tasks)}"
            )
        self._material = Material(experiment)
        for task in config.tasks:
            self._material.prompts(task)
        y = judged(split, config.select, "corrected").y
        if not (y.any(axis=0) & ~y.all(axis=0)).any():
            raise UserError(
                f"no class of {config.select} has positives and negatives among the {len(y)} "
                f"labelled validation records of {split.dataset}: no checkpoint could be chosen by "
                "it"
            )

    def __call__(self, params: Any, state: Any) -> dict[str, float]:
        """Task -> the best prompt set's macro AUROC; `select` is the one that names the best."""
        experiment = self._material.experiment
        config, split = experiment.config.evaluate, experiment.validation
        subject = Subject("trained", self._material, params, state)
        embedding = subject.encode(split).embedding
        scores = {}
        for task in config.tasks:
            rows, y = judged(split, task, "corrected")
            by_set = {
                name: zero_shot.scores(embedding[rows], classes)
                for name, classes in subject.classes(task).items()
            }
            auroc = zero_shot.prompt_set_auroc(by_set, y)
            scores[f"zero_shot_{task}"] = max(auroc.values())
        scores["select"] = scores[f"zero_shot_{config.select}"]
        return scores
