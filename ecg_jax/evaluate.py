"""Evaluates a run's best checkpoint: python -m ecg_jax.evaluate --workdir DIR [--tasks A,B]

Every choice (prompts, penalty, thresholds) is made on validation; figures are of the test split,
with a random encoder beside the trained one.
"""

import argparse
import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ecg_jax import hosts, methods, parallel, workdir
from ecg_jax.checkpoint import Checkpoints
from ecg_jax.data import normalize
from ecg_jax.data.records import Records, check_disjoint
from ecg_jax.errors import UserError, run_main
from ecg_jax.evaluation import bootstrap, linear_probe, metrics, results, zero_shot
from ecg_jax.experiment import Experiment, open_experiment
from ecg_jax.methods import Encoded, View
from ecg_jax.text import prompts

# Which section of prompts.toml names a task's classes.
NAMESPACES = {
    "super": "super",
    "sub": "sub",
    "form": "scp",
    "diagnostic": "scp",
    "all": "scp",
    "rhythm": "scp",
    "findings": "scp",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m ecg_jax.evaluate")
    parser.add_argument("--workdir", required=True, type=Path, help="the run's folder")
    parser.add_argument("--data_dir", help="where the prepared data lie, if not where they were")
    parser.add_argument("--tasks", help="comma-separated, if not the run's own")
    for field in hosts.FLAGS:
        parser.add_argument(
            f"--{field.name}",
            type=type(field.default),
            default=field.default,
            help=field.metadata["help"],
        )
    args = parser.parse_args()
    config, _ = workdir.read(args.workdir)
    if args.data_dir:
        config.data_dir = args.data_dir
    if args.tasks:
        config.evaluate.tasks = args.tasks.split(",")
    hosts.start(hosts.Address(**{field.name: getattr(args, field.name) for field in hosts.FLAGS}))
    workdir.check_hosts(config)
    evaluate(hosts.together(lambda: open_experiment(config)), args.workdir)


def frozen(params: Any, state: Any) -> dict[str, Any]:
    """What a checkpoint for evaluation holds: no optimiser."""
    return {"params": params, "method": state}


def evaluate(experiment: Experiment, folder: Path) -> list[results.Row]:
    """Writes `results.json` of a run's best checkpoint, and prints its table.

    Raises:
      UserError: no checkpoint that is whole, or records that are not those of the training.
    """
    config = experiment.config
    check_records(experiment, folder)
    start = experiment.init(jax.random.key(config.seed))
    best = Checkpoints(folder / "checkpoints" / "best", keep=1)
    restored = best.restore(frozen(*start))
    if restored is None:
        raise UserError(f"{folder} has no best checkpoint yet: train it with its own command")
    step, tree, _ = restored
    text = TaskText(experiment)
    rows = []
    encoders = {
        "trained": (tree["params"], tree["method"]),
        "random": calibrated(experiment, *start),
    }
    for name, variables in encoders.items():
        splits = (experiment.train, experiment.validation, experiment.test)
        encoded = tuple(experiment.encode(*variables, split) for split in splits)
        for task in config.evaluate.tasks:
            rows += probe_rows(experiment, task, name, encoded)
            rows += zero_shot_rows(experiment, task, name, encoded, text, variables[0])
    rows.sort(key=lambda row: (row["task"], row["protocol"], row["encoder"] != "trained"))
    hosts.first_alone(
        lambda: results.write(kept(folder, config.evaluate.tasks) + rows, folder / "results.json")
    )
    tower = experiment.tower.describe()
    print(f"\n{config.method}, best checkpoint (step {step:,}); text tower: {tower['note']}")
    print(results.table(rows))
    print(f"written: {folder / 'results.json'}")
    return rows


def calibrated(
    experiment: Experiment, params: Any, state: Any, batches: int = 64
) -> tuple[Any, Any]:
    """The control: random weights, with the BatchNorm statistics of clean training records.

    At its initial statistics (mean 0, variance 1) a deep random network hardly tells two records
    apart; with those of the data it is the baseline that published figures often fail to beat.
    """
    config, train = experiment.config, experiment.train
    devices, sharding = experiment.mesh.devices.size, parallel.by_record(experiment.mesh)
    size = max(min(config.evaluate.batch_size, len(train)) // devices, 1) * devices
    rng = np.random.default_rng(config.seed)
    plain = copy.deepcopy(config)
    plain.augment, plain.accumulate, plain.parallel.loss = (), 1, "plain"
    plain.batch_size = size
    loss = methods.build(plain).loss

    @jax.jit
    def observe(params: Any, state: Any, ecg: jax.Array, mask: jax.Array) -> Any:
        text = jax.numpy.zeros((size, experiment.tower.width))
        x = normalize.normalize(ecg, mask, config.normalize)
        view = View(x, mask, text, jax.numpy.arange(size))
        with parallel.mesh_of(ecg):
            return loss(params, state, view, jax.random.key(config.seed))[1][0]

    for _ in range(batches):  # of the initial statistics 0.9^64 = 0.1 % remains
        rows = rng.choice(len(train), size, replace=False)
        ecg, mask = (
            parallel.put_rows(array, rows, sharding) for array in (train.ecg, train.lead_mask)
        )
        state = observe(params, state, ecg, mask)
    return params, state


def kept(folder: Path, tasks: Sequence[str]) -> list[results.Row]:
    """The rows that results.json has of other tasks than those evaluated now."""
    path = folder / "results.json"
    old = json.loads(path.read_text()) if path.exists() else []
    return [row for row in old if row["task"] not in tasks]


def check_records(experiment: Experiment, folder: Path) -> None:
    """Raises a UserError if records or text tower are not the run's, or splits share a patient."""
    now = workdir.fingerprints(experiment)
    if differ := workdir.changes(experiment, workdir.read(folder)[1], now):
        raise UserError(
            f"{folder} was trained with other data: {'; '.join(differ)}: name the folder of its "
            "records with --data_dir, and give it the text model that it had"
        )
    check_disjoint(experiment.train, experiment.validation, experiment.test)


def labelled(split: Records, task: str) -> np.ndarray:
    """Rows of the records that have a label of the task (the benchmark's rule: the others are not
    known to be negative).

    Raises:
      UserError: the dataset has no such task.
    """
    if task not in split.labels:
        raise UserError(f"{split.dataset} has no task {task!r}: it has {', '.join(split.labels)}")
    return np.flatnonzero(split.labels[task].any(axis=1))


def probe_rows(
    experiment: Experiment, task: str, encoder: str, encoded: tuple[Encoded, ...]
) -> list[results.Row]:
    """Linear evaluation: a logistic regression on frozen features."""
    splits = (experiment.train, experiment.validation, experiment.test)
    rows = [labelled(split, task) for split in splits]
    x = [e.features[i] for e, i in zip(encoded, rows, strict=True)]
    y = [split.labels[task][i] for split, i in zip(splits, rows, strict=True)]
    probe = linear_probe.fit(x[0], y[0], x[1], y[1])
    scores = [linear_probe.predict(probe, part) for part in x[1:]]
    best = max(value for _, value in probe.path)
    note = f"penalty {probe.l2:g}, validation macro AUROC {best:.3f}"
    return _rows(experiment, task, "linear_probe", encoder, y[1:], scores, rows[2], note)


def zero_shot_rows(
    experiment: Experiment,
    task: str,
    encoder: str,
    encoded: tuple[Encoded, ...],
    text: "TaskText",
    params: Any,
) -> list[results.Row]:
    """Zero-shot classification with the prompt set that does best on validation."""
    if experiment.method.encode_text is None:
        return []
    rows = [labelled(split, task) for split in (experiment.validation, experiment.test)]
    y = [
        split.labels[task][i]
        for split, i in zip((experiment.validation, experiment.test), rows, strict=True)
    ]
    classes = text.classes(params, task)
    embedding = [e.embedding[i] for e, i in zip(encoded[1:], rows, strict=True)]
    scores = {name: [zero_shot.scores(e, c) for e in embedding] for name, c in classes.items()}
    validation = {name: s[0] for name, s in scores.items()}
    chosen = zero_shot.choose_prompt_set(validation, y[0])
    best = zero_shot.prompt_set_auroc(validation, y[0])[chosen]
    note = f"prompts {chosen}, validation macro AUROC {best:.3f}"
    return _rows(experiment, task, "zero_shot", encoder, y, scores[chosen], rows[1], note)


def _rows(
    experiment: Experiment,
    task: str,
    protocol: str,
    encoder: str,
    y: list[np.ndarray],
    scores: list[np.ndarray],
    test_rows: np.ndarray,
    note: str,
) -> list[results.Row]:
    """Test figures at thresholds chosen on validation; `y` and `scores` are (validation, test)."""
    test = experiment.test
    patient = test.patient_id[test_rows]
    rows = results.rows(
        y[1],
        scores[1],
        metrics.best_f1_threshold(y[0], scores[0]),
        patient,
        task=task,
        dataset=test.dataset,
        split="test",
        protocol=protocol,
        encoder=encoder,
        classes=test.classes[task],
        draws=bootstrap.draws(patient, experiment.config.evaluate.draws),
    )
    tower = experiment.tower.describe()["note"]
    return [{**row, "choice": note, "text_tower": tower} for row in rows]


class TaskText:
    """Prompt embeddings of the config's tasks, computed once: task -> set -> class -> [P, F]."""

    def __init__(self, experiment: Experiment):
        self._experiment = experiment
        self._prompts = {}
        if experiment.method.encode_text is None:
            return
        for task in experiment.config.evaluate.tasks:
            labelled(experiment.validation, task)
            names = experiment.validation.classes[task]
            if task not in NAMESPACES:
                raise UserError(f"no prompts for task {task!r}: there are {', '.join(NAMESPACES)}")
            sets = prompts.prompt_sets(names, NAMESPACES[task])
            embed = experiment.tower.embed
            self._prompts[task] = {
                name: {label: embed(texts) for label, texts in classes.items()}
                for name, classes in sets.items()
            }

    def classes(self, params: Any, task: str) -> dict[str, np.ndarray]:
        """Prompt set -> class embeddings [K, E] in the joint space."""
        encode = self._experiment.method.encode_text
        assert encode is not None
        return {
            name: zero_shot.class_embeddings(
                {label: np.asarray(encode(params, x)) for label, x in classes.items()}
            )
            for name, classes in self._prompts[task].items()
        }


class Validator:
    """Zero-shot macro AUROC of the config's tasks on validation, while training."""

    def __init__(self, experiment: Experiment):
        if experiment.config.evaluate.select not in experiment.config.evaluate.tasks:
            raise UserError(
                f"--config.evaluate.select={experiment.config.evaluate.select} is not one of "
                f"--config.evaluate.tasks={','.join(experiment.config.evaluate.tasks)}"
            )
        self._experiment = experiment
        self._text = TaskText(experiment)
        split, task = experiment.validation, experiment.config.evaluate.select
        y = split.labels[task][labelled(split, task)]
        if not (y.any(axis=0) & ~y.all(axis=0)).any():
            raise UserError(
                f"no class of {task} has positives and negatives among the {len(y)} labelled "
                f"validation records of {split.dataset}: no checkpoint could be chosen by it"
            )

    def __call__(self, params: Any, state: Any) -> dict[str, float]:
        """Task -> the best prompt set's macro AUROC; `select` is the one that names the best."""
        config, split = self._experiment.config, self._experiment.validation
        encoded = self._experiment.encode(params, state, split)
        scores = {}
        for task in config.evaluate.tasks:
            rows = labelled(split, task)
            by_set = {
                name: zero_shot.scores(encoded.embedding[rows], classes)
                for name, classes in self._text.classes(params, task).items()
            }
            auroc = zero_shot.prompt_set_auroc(by_set, split.labels[task][rows])
            scores[f"zero_shot_{task}"] = max(auroc.values())
        scores["select"] = scores[f"zero_shot_{config.evaluate.select}"]
        return scores


if __name__ == "__main__":
    run_main(main)
