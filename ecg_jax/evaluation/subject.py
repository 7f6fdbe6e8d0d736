"""An encoder under evaluation."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ecg_jax.data import records as records_lib
from ecg_jax.data.records import Records
from ecg_jax.errors import UserError
from ecg_jax.evaluation import robustness, tasks
from ecg_jax.evaluation.protocols import features, report_bank, zero_shot
from ecg_jax.evaluation.protocols.finetune import Finetuner
from ecg_jax.evaluation.protocols.linear_probe import Probe
from ecg_jax.run.experiment import Experiment, Summary, feature_map, report_texts
from ecg_jax.text import prompts
from ecg_jax.text.reports import sentences
from ecg_jax.text.tower import TextTower

REWRITTEN = "report and training reports"  # a prompt set of its own: see `report_bank.rewritten`


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
        own = (*prompts.WORDINGS, prompts.ENSEMBLE, prompts.FINDING)
        frames = {name: config.text.template for name in own}
        return {
            name: {
                label: (texts, tower.embed(texts, template=frames.get(name, "{text}")))
                for label, texts in classes.items()
            }
            for name, classes in sets.items()
        }

    def embedded_reports(self, split: Records) -> np.ndarray:
        """The tower's embeddings float32 [N, F] of the records' own reports; zero where there is
        none."""
        texts, row = report_texts(self.experiment.config, split)
        embedded = self.tower.embed(texts, template=self.experiment.config.text.template)
        return np.where(row[:, None] >= 0, embedded[row], np.float32(0))

    @functools.cached_property
    def reports(self) -> tuple[np.ndarray, np.ndarray]:
        """The tower's embeddings [M, F] of the test split's reports, and each record's row of it.

        Raises:
          UserError: the dataset has no reports.
        """
        return self.reports_of(self.experiment.test)

    def reports_of(self, split: Records) -> tuple[np.ndarray, np.ndarray]:
        """The same of any split."""
        config = self.experiment.config
        texts, row = report_texts(config, split)
        return self.tower.embed(texts, template=config.text.template), row

    @functools.cached_property
    def sample(self) -> Records:
        """At most `evaluate.neighbours` training records, drawn once: what embeddings are centred
        by. Nothing but their signals is looked at."""
        train, config = self.experiment.train, self.experiment.config
        drawn = np.random.default_rng(config.seed).permutation(len(train))
        return train.take(np.sort(drawn[: config.evaluate.neighbours]))

    @functools.cached_property
    def bank(self) -> report_bank.Bank | None:
        """The training reports of `evaluate.bank`, or of the records' own dataset, as the tower
        embeds them; None, and a line that says why, where there are none."""
        experiment, config = self.experiment, self.experiment.config
        name = config.evaluate.bank or config.dataset
        try:
            split = experiment.train
            if name != config.dataset:
                read = functools.partial(records_lib.load, config.data_dir, name, config.rate)
                split = read("train", seconds=config.seconds, stored=True)
            texts, row = report_texts(config, split)
            if len(texts) < 2:
                raise UserError(f"{name} has one training report for all")
        except UserError as error:
            print(f"no training reports to go by: {error}")
            return None
        embed = functools.partial(self.tower.embed, template=config.text.template)
        distinct, part, start = report_bank.pieces([sentences(text) for text in texts])
        count = np.bincount(row[row >= 0], minlength=len(texts))
        return report_bank.Bank(embed(texts), count, embed(distinct), part, start)


@dataclasses.dataclass
class Subject:
    """Attributes:
    name: "trained", "shuffled" (trained on permuted reports) or "random".
    params, state: of the experiment's method.
    probes: (task, rule, share of the labels) -> the linear probe and a note, once fitted.
    bases: what the probes are solved in.
    fits: (protocol, task, rule) -> what else is fitted once and used for harder records, too.
    """

    name: str
    material: Material
    params: Any
    state: Any
    probes: dict[tuple, tuple[Probe, str]] = dataclasses.field(default_factory=dict)
    bases: dict[tuple, np.ndarray] = dataclasses.field(default_factory=dict)
    fits: dict[tuple[str, str, str], Any] = dataclasses.field(default_factory=dict)
    _prompts: dict[str, dict[str, dict[str, np.ndarray]]] = dataclasses.field(default_factory=dict)
    _encoded: dict[int, tuple[Records, Summary]] = dataclasses.field(default_factory=dict)
    _maps: dict[int, tuple[Records, np.ndarray]] = dataclasses.field(default_factory=dict)

    def encode(self, records: Records) -> Summary:
        """Features and embeddings, computed once."""
        if id(records) not in self._encoded:  # kept with the records, so that the id stays theirs
            self._encoded[id(records)] = records, self._compute(records)
        return self._encoded[id(records)][1]

    def _compute(self, records: Records) -> Summary:
        return self.material.experiment.encode(self.params, self.state, records)

    def probed(self, records: Records, rule: str) -> np.ndarray:
        """What the linear probe is given of the records: under the paper's rule the features as
        they are, else pooled as the config says."""
        encoded, options = self.encode(records), self.material.experiment.config.evaluate
        return encoded.features if rule == "paper" else features.pooled(encoded, options)

    def probed_note(self, rule: str) -> str:
        """How `probed` made its features."""
        options = self.material.experiment.config.evaluate
        return "" if rule == "paper" else features.pooling_note(options)

    def map(self, records: Records) -> np.ndarray:
        """The feature maps float16 [N, P, D], computed once: `forget_maps` when they have served,
        as they take 32 kB a record."""
        if id(records) not in self._maps:
            of = self.params, self.state, records, feature_map
            self._maps[id(records)] = records, self.material.experiment.encode(*of)
        return self._maps[id(records)][1]

    def forget_maps(self) -> None:
        self._maps.clear()

    def forget(self, records: Records) -> None:
        """Drops the records and what was computed of them."""
        self._encoded.pop(id(records), None)
        self._maps.pop(id(records), None)

    @property
    def reads_text(self) -> bool:
        return self.material.experiment.method.encode_text is not None

    def embed(self, text: np.ndarray) -> np.ndarray:
        """The tower's embeddings [N, F] in the joint space, unit vectors [N, E]."""
        encode = self.material.experiment.method.encode_text
        assert encode is not None
        return np.asarray(encode(self.params, jax.numpy.asarray(text)))

    def prompts(self, task: str) -> dict[str, dict[str, np.ndarray]]:
        """Prompt set -> class -> its prompts' embeddings [P, E] in the joint space, computed
        once."""
        if task not in self._prompts:
            sets = self.material.prompts(task)
            parts = [x for each in sets.values() for _, x in each.values()]
            ends = np.cumsum([len(x) for x in parts])[:-1]
            embedded = iter(np.split(self.embed(np.concatenate(parts)), ends))
            self._prompts[task] = {
                name: {label: next(embedded) for label in each} for name, each in sets.items()
            }
        return self._prompts[task]

    def classes(self, task: str) -> dict[str, np.ndarray]:
        """Prompt set -> class embeddings [K, E] in the joint space."""
        return {name: zero_shot.class_embeddings(x) for name, x in self.prompts(task).items()}

    @functools.cached_property
    def bank(self) -> report_bank.Bank | None:
        """The training reports in the joint space."""
        bank = self.material.bank
        if bank is None:
            return None
        return bank._replace(
            embedding=self.embed(bank.embedding), sentence=self.embed(bank.sentence)
        )

    @functools.cached_property
    def mean(self) -> np.ndarray:
        """float64 [E], the mean embedding of training records."""
        embedding = self.encode(self.material.sample).embedding
        return zero_shot.unit(embedding, "a record's").mean(axis=0)

    def found(self, task: str) -> np.ndarray:
        """float32 [M, K]: see `report_bank.found`."""
        assert self.bank is not None
        return report_bank.found(self.bank, self.prompts(task)[prompts.FINDING])

    def centred_classes(self, task: str) -> dict[str, np.ndarray]:
        """As `classes`, of prompts less the mean training report; and `REWRITTEN`, the reports'
        prompts written anew."""
        assert self.bank is not None
        mean = self.bank.mean
        sets = {
            name: zero_shot.class_embeddings(
                {label: zero_shot.centred(x, mean) for label, x in each.items()}
            )
            for name, each in self.prompts(task).items()
        }
        found = self.found(task)
        return sets | {REWRITTEN: report_bank.rewritten(self.bank, sets["report"], found)}


@dataclasses.dataclass
class Control:
    """What is no trained encoder's: features for the linear probe alone.

    Attributes:
      name: the rows' encoder.
      features: records -> float32 [N, D].
      probes, bases: as a `Subject`'s.
    """

    name: str
    material: Material
    features: Callable[[Records], np.ndarray]
    probes: dict[tuple, tuple[Probe, str]] = dataclasses.field(default_factory=dict)
    bases: dict[tuple, np.ndarray] = dataclasses.field(default_factory=dict)
    _known: dict[int, tuple[Records, np.ndarray]] = dataclasses.field(default_factory=dict)

    def probed(self, records: Records, rule: str) -> np.ndarray:
        """Their features, computed once, under every rule."""
        del rule
        if id(records) not in self._known:
            self._known[id(records)] = records, self.features(records)
        return self._known[id(records)][1]

    def probed_note(self, rule: str) -> str:
        del rule
        return ""
