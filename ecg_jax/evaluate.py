"""Evaluates a run's best checkpoint: python -m ecg_jax.evaluate --workdir DIR [--tasks A,B]

Every choice (prompts, penalty, thresholds) is made on validation; figures are of the test split,
with a random encoder beside the trained one, under the corrected rule and under the paper's.
"""

import argparse
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from ecg_jax import Config, report
from ecg_jax.data import records
from ecg_jax.data.classes import OWN, TASKS
from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError, run_main
from ecg_jax.evaluation import controls, delineate, examine, heads, robustness, tabulate
from ecg_jax.evaluation.figures import across, predictions, results, tables
from ecg_jax.evaluation.figures.predictions import Predictions
from ecg_jax.evaluation.guards import label_check
from ecg_jax.evaluation.guards.leaks import check_leaks
from ecg_jax.evaluation.protocols import report_bank
from ecg_jax.evaluation.subject import Material, Subject
from ecg_jax.methods import lasting
from ecg_jax.report import fill, picture_file, pictures
from ecg_jax.run import exported, workdir
from ecg_jax.run.experiment import Experiment, open_experiment
from ecg_jax.runtime import hosts, lock, process, storage
from ecg_jax.runtime.checkpoint import Checkpoints

# What is evaluated, and what there is to choose from.
_CHOICES = {
    "tasks": "; ".join(f"{', '.join(tasks)} of {name}" for name, tasks in TASKS.items()),
    "protocols": ", ".join(examine.PROTOCOLS),
    "rules": ", ".join(examine.RULES),
    "fractions": "shares of the labels, such as 0.01,0.1,1",
    "finetune_fractions": "shares of the labels, such as 0.05,1",
    "conditions": f"all; {'; '.join(c.name for c in robustness.conditions(500))}",
    "controls": "; ".join(controls.NAMES),
}
LISTS = ("tasks", "protocols", "rules", "fractions", "finetune_fractions", "conditions", "controls")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m ecg_jax.evaluate")
    parser.add_argument("--workdir", required=True, help="the run's folder")
    parser.add_argument("--data_dir", help="where the prepared data lie, if not where they were")
    parser.add_argument("--dataset", help="another one than that of the training: transfer")
    parser.add_argument("--prompts", help="a prompt file of your own")
    parser.add_argument("--bank", help="whose training reports zero_shot_reports goes through")
    parser.add_argument("--null_draws", type=int, help="random heads drawn for zero-shot's null")
    for name in LISTS:
        there = _CHOICES[name].replace("%", "%%")
        parser.add_argument(f"--{name}", help=f"comma-separated, if not the run's own: {there}")
    for field in hosts.FLAGS:
        parser.add_argument(
            f"--{field.name}",
            type=type(field.default),
            default=field.default,
            help=field.metadata["help"],
        )
    args = parser.parse_args()
    process.configure()
    folder = storage.path(args.workdir)
    config, _ = workdir.read(folder)
    trained_on = config.dataset
    for name in ("data_dir", "dataset"):
        if getattr(args, name):
            config[name] = getattr(args, name)
    for name in LISTS:
        if getattr(args, name) is not None:
            items = [item for item in getattr(args, name).split(",") if item]
            config.evaluate[name] = _numbers(name, items) if "fractions" in name else items
    config.evaluate.prompts = args.prompts or config.evaluate.prompts
    config.evaluate.bank = args.bank or config.evaluate.bank
    if args.null_draws is not None:
        config.evaluate.null_draws = args.null_draws
    if config.dataset != trained_on:  # what was pre-trained on says what reports are like
        config.evaluate.bank = config.evaluate.bank or trained_on
    if config.dataset != trained_on and not args.tasks:
        known = ",".join(TASKS.get(config.dataset, (OWN,)))
        raise UserError(
            f"--dataset {config.dataset} needs --tasks: its label sets, such as {known}"
        )
    hosts.start(hosts.Address(**{field.name: getattr(args, field.name) for field in hosts.FLAGS}))
    workdir.check_hosts(config)
    with lock.held(folder):
        opened = hosts.together(lambda: open_experiment(config, trains=False))
        evaluate(opened, folder)


def _numbers(name: str, items: list[str]) -> list[float]:
    try:
        return [float(item) for item in items]
    except ValueError:
        raise UserError(f"--{name} {','.join(items)}: not numbers, such as 0.01,0.1,1") from None


def frozen(params: Any, state: Any) -> dict[str, Any]:
    """What a checkpoint for evaluation holds: neither optimiser nor memory."""
    return {"params": params, "method": lasting(state)}


def evaluate(experiment: Experiment, folder: Path, *, controlled: bool = True) -> list[results.Row]:
    """Writes `results.json` and `predictions.npz` of a run's best checkpoint, prints a table, and
    writes `pictures.npz` and `report.html`.

    What the folder holds of other tasks, protocols and datasets stays. `controlled` is whether the
    config's controls are evaluated, too; from the random encoder the supervised network is trained.

    Raises:
      UserError: no checkpoint that is whole, records that are not those of the training, or no
        figure of what is asked for.
    """
    config = experiment.config
    examine.check(config)
    if not config.evaluate.protocols and not config.evaluate.retrieval:
        print("nothing to evaluate: config.evaluate names no protocol and no retrieval")
        return []
    check_readable(folder)
    experiment = check_records(experiment, folder)
    start = experiment.init(jax.random.key(config.seed))
    step, *best = restore(folder, *start)
    material = Material(experiment)
    trained = Subject(trained_name(experiment), material, *best)
    found, rows = [], []
    tower = experiment.described_tower()["note"]
    asked = "delineate" in config.evaluate.protocols
    waves = delineate.Delineation(experiment) if asked else None
    others = config.evaluate.controls if controlled else ()
    # One after the other: of each but the trained one, nothing is kept but its figures.
    for subject in itertools.chain([trained], (controls.subject(material, n) for n in others)):
        if subject is None:
            continue
        for part in examine.examine(subject):
            found.append(part)
            if part.split == "test":
                rows += tabulate.rows(
                    part, paper=config.evaluate.paper, draws=config.evaluate.draws
                )
        if isinstance(subject, Subject):
            rows += tabulate.retrieval_rows(subject) if config.evaluate.retrieval else []
            rows += tabulate.identification_rows(subject)
            rows += tabulate.null_rows(subject) if subject.name == "random" else []
            rows += waves.rows(subject) if waves else []
    rows += waves.compared() if waves else []
    if not rows:
        raise UserError(
            f"no figures came of {', '.join(config.evaluate.protocols)}: ask for other protocols, "
            "tasks or rules"
        )
    found = [part._replace(step=step) for part in found]
    rows += across.calibrated(found) + _compared(folder, found, trained.name)
    rows = [{**row, "seed": config.seed, "step": step, "text_tower": tower} for row in rows]
    rows.sort(key=lambda row: _importance(config, row, trained.name))
    hosts.first_alone(lambda: _write(folder, rows, found))
    decides = heads.fit(trained, step)
    hosts.first_alone(lambda: heads.write(decides, folder / heads.FILE))
    bank = trained.bank if "zero_shot_reports" in config.evaluate.protocols else None
    if bank is not None:
        hosts.first_alone(lambda: report_bank.write(bank, step, folder / report_bank.FILE))
    print(f"\n{config.method}, best checkpoint (step {step:,}); text tower: {tower}")
    print(tables.table(rows))
    print(f"written: {folder / 'results.json'}", flush=True)
    drawn = pictures.pictures(trained, predictions.read(folder / "predictions.npz"))
    drawn += pictures.waves(waves.best, experiment.test) if waves and waves.best else []
    hosts.first_alone(lambda: _report(folder, step, drawn))
    print(f"written: {folder / 'report.html'}")
    return rows


def _importance(config: Config, row: results.Row, first: str) -> tuple:
    """Where a row stands: as the config names tasks and protocols, the trained encoder first."""

    def place(given: Sequence[str], name: str) -> int:
        return list(given).index(name) if name in given else len(given)

    c = config.evaluate
    task, protocol = place(c.tasks, row["task"]), place(c.protocols, row["protocol"])
    return task, row["task"], protocol, row["protocol"], row["encoder"] != first


def check_readable(folder: Path) -> None:
    """Raises a UserError if the figures that the folder holds of earlier evaluations, which are put
    beside the new ones, cannot be read: better now than after the work. (Pictures come last.)"""
    results.read(folder / "results.json")
    predictions.read(folder / "predictions.npz")
    heads.read(folder / heads.FILE)


def restore(folder: Path, params: Any, state: Any) -> tuple[int, Any, Any]:
    """Step, parameters and state of a run's best checkpoint, which are like those given.

    Raises:
      UserError: there is none that is whole.
    """
    like = frozen(params, state)
    if storage.exists(folder / exported.WEIGHTS):  # an imported model: no run of ours
        saved = workdir.read(folder)[1]
        exported.check_seal(folder, saved)
        tree = exported.restore(folder, saved["weights_sha256"], like)
        return 0, tree["params"], tree["method"]
    best = Checkpoints(folder / "checkpoints" / "best", keep=1).restore(like)
    if best is None:
        raise UserError(f"{folder} has no best checkpoint yet: train it with its own command")
    step, tree, _ = best
    return step, tree["params"], tree["method"]


def trained_name(experiment: Experiment) -> str:
    """What the rows call a run's encoder: a run on shuffled reports is a control."""
    config = experiment.config
    return "shuffled" if "text" in config and config.text.shuffle else "trained"


def _compared(folder: Path, found: list[Predictions], first: str) -> list[results.Row]:
    """`across.compared` of what is new, beside what the folder holds of the same checkpoint."""
    new, groups = {p.key for p in found}, {across.group(p) for p in found}
    kept = predictions.read(folder / "predictions.npz")
    kept = [p for p in kept if p.key not in new and p.step == found[0].step] if found else []
    together = [p for p in kept + found if across.group(p) in groups]
    return across.compared(together, first)


def _write(folder: Path, rows: list[results.Row], found: list[Predictions]) -> None:
    """Beside what there is of the same checkpoint."""
    step = rows[0]["step"]
    new = {predictions.key(row) for row in rows} | {p.key for p in found}
    groups = {across.group(p) for p in found}
    path = folder / "results.json"
    old = [r for r in results.read(path) if predictions.key(r) not in new]
    old = [r for r in old if not across.is_gain(r) or across.group_of(r) not in groups]
    if others := sum(r.get("step") != step for r in old):
        print(f"{path}: {others} rows of another checkpoint or version are left out")
    results.write([r for r in old if r.get("step") == step] + rows, path)
    path = folder / "predictions.npz"
    kept = [p for p in predictions.read(path) if p.key not in new and p.step == step]
    predictions.write(kept + found, path)


def _report(folder: Path, step: int, drawn: list[picture_file.Picture]) -> None:
    """A page of all that the folder holds of this checkpoint."""
    picture_file.update(folder / fill.PICTURES, step, drawn)
    report.write(fill.content(folder, workdir.read(folder)[1]), folder / "report.html")


def check_records(experiment: Experiment, folder: Path) -> Experiment:
    """The experiment with no leads but those of the training.

    Raises:
      UserError: records, config or text tower are not the run's, splits share a patient, label
        columns contradict each other, or see `known_leads`.
    """
    _, saved = workdir.read(folder)
    imported = "imported" in saved
    transfer = imported or experiment.config.dataset != saved["config"]["dataset"]
    now = {} if transfer else workdir.fingerprints(experiment)
    experiment = known_leads(experiment, saved.get("leads", LEADS))
    if differ := differences(experiment, saved, now):
        raise UserError(
            f"{folder} was trained otherwise: {'; '.join(differ[:4])}: name the folder of its "
            "records with --data_dir, and give it the config and text model that it had"
        )
    splits = (experiment.train, experiment.validation, experiment.test)
    check_leaks(*splits)
    if imported:
        print(f"imported: {saved['imported']}")
    elif transfer:
        check_transfer(experiment, saved["config"]["dataset"])
    for task in experiment.config.evaluate.tasks:
        label_check.check_labels(*splits, task)
    return experiment


def check_transfer(experiment: Experiment, dataset: str) -> None:
    """Raises a UserError if the pre-training's records, or those that chose its checkpoint, are
    among the test records; says so where they are not at hand."""
    c = experiment.config
    for split in ("train", "validation"):
        try:
            seen = records.load(c.data_dir, dataset, c.rate, split, seconds=c.seconds, stored=True)
        except UserError as error:
            print(f"whether test records were pre-trained on could not be checked: {error}")
            return
        check_leaks(seen, experiment.test)


def differences(experiment: Experiment, saved: dict[str, Any], now: dict[str, str]) -> list[str]:
    """What of a run is no longer as it was, but for what is evaluated."""
    config = workdir.differences(experiment, saved, evaluating=True)
    return config + workdir.draws(experiment, saved) + workdir.changes(experiment, saved, now)


def known_leads(experiment: Experiment, trained: Sequence[str]) -> Experiment:
    """Says which leads the records have, if not those of the training, and zeroes those that the
    encoder has never seen; that brings a split that is stored on disk into memory.

    Raises:
      UserError: some record has none of the training's leads.
    """
    dataset, there = experiment.test.dataset, experiment.test.leads
    if not set(there) & set(trained):
        raise UserError(
            f"{dataset} has the leads {', '.join(there)}, and the encoder was trained on "
            f"{', '.join(trained)}: it has seen none of them"
        )
    if missing := [name for name in trained if name not in there]:
        print(
            f"{dataset} test has the leads {', '.join(there)}; {', '.join(missing)}, which the "
            "encoder was trained with, are zero"
        )
    splits = {name: getattr(experiment, name) for name in ("train", "validation", "test")}
    anywhere = {name for split in splits.values() for name in split.leads}
    if unknown := [name for name in LEADS if name in anywhere and name not in trained]:
        print(
            f"{dataset}: {', '.join(unknown)} are left out of its records, as the encoder was "
            f"trained on {', '.join(trained)}"
        )
        experiment = dataclasses.replace(experiment)
        for name, split in splits.items():
            try:
                experiment.__dict__[name] = robustness.only(split, trained)
            except UserError as error:
                raise UserError(f"{dataset} {name}: {error}") from error
    return experiment


if __name__ == "__main__":
    run_main(main)
