"""An encoder under evaluation."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from ecg_jax.data.records import Records
from ecg_jax.evaluation import robustness, tasks
from ecg_jax.evaluation.protocols import zero_shot
from ecg_jax.evaluation.protocols.finetune import Finetuner
from ecg_jax.evaluation.protocols.linear_probe import Probe
from ecg_jax.methods import Encoded
from ecg_jax.run.experiment import Experiment, report_texts
from ecg_jax.text import prompts
from ecg_jax.text.tower import TextTower


class Material:
    """What all encoders of one evaluation share: records and their harder conditions, the text
    tower's embeddings of prompts and reports, and the compiled steps of training on labels."""

    def __init__(self, experiment: Experiment):
        self.experiment = experiment
        self.prompts = functools.cache(self._prompts)
        self.finetuner = functools.cache(functools.partial(Finetuner, experiment))

    @property
    def tower(self) -> TextTower:
        assert self.experiment.tower is not None, "asked of methods with a text side only"
        return self.experiment.tower

    @functools.cached_property
    def conditions(self) -> dict[str, robustness.Condition]:
        return {c.name: c for c in robustness.conditions(self.experiment.config.rate)}

    def _prompts(self, task: str) -> dict[str, dict[str, tuple[list[str], np.ndarray]]]:
        """set -> class -> (its prompts, the tower's embeddings float32 [P, F]). Wordings stand in
        for reports, so they get the template that reports have; a template of its own stays."""
        config, split, tower = self.experiment.config, self.experiment.validation, self.tower
        tasks.check(split.dataset, split.classes, [task])
        section = tasks.section(split.dataset, task)
        sets = prompts.prompt_sets(split.classes[task], section, config.evaluate.prompts or None)
        frames = {name: config.text.template for name in (*prompts.WORDINGS, prompts.ENSEMBLE)}
        return {
            name: {
                label: (texts, tower.embed(texts, template=frames.get(name, "{text}")))
                for label, texts in classes.items()
            }
            for name, classes in sets.items()
        }

    @functools.cached_property
    def reports(self) -> tuple[np.ndarray, np.ndarray]:
        """The tower's embeddings [M, F] of the test split's reports, and each record's row of it.

        Raises:
          UserError: the dataset has no reports.
        """
        config = self.experiment.config
        texts, row = report_texts(config, self.experiment.test)
        return self.tower.embed(texts, template=config.text.template), row


@dataclasses.dataclass
class Subject:
    """Attributes:
    name: "trained", "shuffled" (trained on permuted reports) or "random".
    params, state: of the experiment's method.
    probes: (task, rule, share of the labels) -> the linear probe and a note, once fitted.
    """

    name: str
    material: Material
    params: Any
    state: Any
    probes: dict[tuple, tuple[Probe, str]] = dataclasses.field(default_factory=dict)
    _encoded: dict[int, tuple[Records, Encoded]] = dataclasses.field(default_factory=dict)

    def encode(self, records: Records) -> Encoded:
        """Features and embeddings, computed once."""
        if id(records) not in self._encoded:  # kept with the records, so that the id stays theirs
            encoded = self.material.experiment.encode(self.params, self.state, records)
            self._encoded[id(records)] = records, encoded
        return self._encoded[id(records)][1]

    def forget(self, records: Records) -> None:
        """Drops the records and what was computed of them."""
        self._encoded.pop(id(records), None)

    @property
    def reads_text(self) -> bool:
        return self.material.experiment.method.encode_text is not None

    def embed(self, text: np.ndarray) -> np.ndarray:
        """The tower's embeddings [N, F] in the joint space, unit vectors [N, E]."""
        encode = self.material.experiment.method.encode_text
        assert encode is not None
        return np.asarray(encode(self.params, jax.numpy.asarray(text)))

    def classes(self, task: str) -> dict[str, np.ndarray]:
        """Prompt set -> class embeddings [K, E] in the joint space."""
        return {
            name: zero_shot.class_embeddings(
                {label: self.embed(x) for label, (_, x) in classes.items()}
            )
            for name, classes in self.material.prompts(task).items()
        }
