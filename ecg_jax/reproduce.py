"""Trains and evaluates what a published table shows, and prints it beside the paper's figures.

    python -m ecg_jax.reproduce TABLE [--out runs/TABLE] [--data_dir data] [--rate 500]
        [--text clinicalbert] [--recipe modern|paper] [--seeds 0,1,2] [--source FOLDER]
        [--datasets ptb_xl] [--methods simclr,byol] [--tasks super,sub] [--protocols linear_probe]
        [--variants hard,soft]

Finished parts are not done again: the same command goes on where it stopped. figures.csv has each
seed's figures. docs/reproducing.md says what each table needs.
"""

import argparse
import dataclasses
import functools
import importlib
import importlib.util
import itertools
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ecg_jax import Config, evaluate, report, train
from ecg_jax.data import records
from ecg_jax.errors import UserError, run_main
from ecg_jax.evaluation import robustness
from ecg_jax.evaluation.figures import across, predictions, results
from ecg_jax.evaluation.figures.predictions import Predictions
from ecg_jax.evaluation.papers.beside import beside
from ecg_jax.evaluation.published_tables import (
    FROZEN,
    LEAD_AGNOSTIC_CONFIGS,
    NAMES,
    READING,
    TABLES,
    WITH_WAVES,
    Table,
)
from ecg_jax.methods.shared import health
from ecg_jax.report import fill
from ecg_jax.run import config as config_lib
from ecg_jax.run import workdir
from ecg_jax.run.experiment import open_experiment
from ecg_jax.runtime import files, hosts, lock, process, storage
from ecg_jax.runtime.stop import Stop

RANK = "validation/effective_rank"  # in metrics.jsonl


class Run(NamedTuple):
    """One pre-training; `encoder` is what the table's rows call it."""

    method: str
    seed: int
    encoder: str
    leads: int = 12
    variant: str = ""

    @property
    def folder(self) -> str:
        few = "" if self.leads == 12 else f"_of_{self.leads}"
        few += f"_{self.variant.replace('+', '_')}" if self.variant else ""
        return f"{'shuffled' if self.encoder == 'shuffled' else self.method}{few}_{self.seed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m ecg_jax.reproduce")
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--out", help="folder of the runs; default runs/TABLE")
    parser.add_argument("--data_dir", default="data", help="folder of the prepared records")
    parser.add_argument("--source", help="folder of PTB-XL as published, if it is to be prepared")
    parser.add_argument(
        "--rate", type=int, choices=(100, 500), help="default: that of the table, 100 or 500"
    )
    parser.add_argument("--text", default="clinicalbert", help="text tower")
    parser.add_argument("--recipe", default="modern", choices=("modern", "paper", "code"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--datasets", help="comma-separated, if not all that the table evaluates")
    parser.add_argument("--methods", help="comma-separated baselines, if not the table's own")
    parser.add_argument("--variants", help="comma-separated forms of the method, if not all")
    parser.add_argument("--tasks", help="comma-separated label sets, if not all of the table")
    parser.add_argument("--protocols", help="comma-separated, if not all of the table")
    for field in hosts.FLAGS:
        parser.add_argument(
            f"--{field.name}",
            type=type(field.default),
            default=field.default,
            help=field.metadata["help"],
        )
    args = parser.parse_args()
    args.rate = args.rate or TABLES[args.table].rate
    process.configure()
    config_lib.know_configs()
    hosts.start(hosts.Address(**{field.name: getattr(args, field.name) for field in hosts.FLAGS}))
    options = {name: str(value) for name, value in vars(args).items() if name != "process"}
    hosts.check_same("options", options, "start all of them with one command")
    table, out = narrowed(args), storage.path(args.out or f"runs/{args.table}")
    seeds = parse_seeds(args.seeds)
    corpus = recipe(args, table, runs(table, seeds)[0]).dataset
    for dataset in dict.fromkeys((corpus, *table.targets)):
        hosts.first_alone(functools.partial(prepare, args, dataset))
    rows = []
    for run in runs(table, seeds):
        rows += carry_out(table, run, recipe(args, table, run), out / run.folder)
    rows += compared(table, runs(table, seeds), out)
    hosts.first_alone(lambda: results.write(rows, out / "results.json"))
    hosts.first_alone(lambda: results.write_csv(rows, out / "figures.csv"))
    folders = [out / run.folder for run in runs(table, seeds) if run.encoder == "trained"]
    trained = {folder: workdir.read(folder)[1] for folder in folders}
    print(f"\n{args.table}, seeds {args.seeds}: mean ± standard deviation over them")
    print(beside(rows, args.table))
    print(ranks(runs(table, seeds), out), flush=True)
    title = f"{args.table}, {len(seeds)} seed{'s' if len(seeds) > 1 else ''}"
    page = fill.several(title, trained, rows)
    hosts.first_alone(lambda: report.write(page, out / "report.html"))
    written = (out / name for name in ("results.json", "figures.csv", "report.html"))
    print(f"written: {', '.join(map(str, written))}")


def parse_seeds(text: str) -> list[int]:
    try:
        seeds = [int(seed) for seed in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds {text}: not different whole numbers, such as 0,1,2")
    return seeds


def prepare(args: argparse.Namespace, dataset: str) -> None:
    """Prepares a dataset that is not there: PTB-XL from --source or PhysioNet, others by hand."""
    try:
        records.folder(args.data_dir, dataset, args.rate)
    except UserError:
        if dataset != "ptb_xl":
            raise
        from tfds_builders import prepare

        options = [dataset, "--rate", str(args.rate), "--data_dir", args.data_dir]
        options += ["--source", args.source] if args.source else []
        if prepare.main(options):
            raise UserError(f"{dataset} could not be prepared") from None


def narrowed(args: argparse.Namespace) -> Table:
    """The table, of the datasets, tasks, protocols and baselines that the command names."""
    table = TABLES[args.table]
    if args.protocols:
        names = _some("--protocols", args.protocols, table.protocols)
        table = dataclasses.replace(table, protocols=names)
    if args.tasks:
        every = dict.fromkeys(task for tasks in table.targets.values() for task in tasks)
        names = _some("--tasks", args.tasks, tuple(every))
        targets = {d: tuple(t for t in tasks if t in names) for d, tasks in table.targets.items()}
        table = dataclasses.replace(
            table, targets={d: tasks for d, tasks in targets.items() if tasks}
        )
    if args.variants is not None:
        names = _some("--variants", args.variants, tuple(table.variants)) if args.variants else ()
        table = dataclasses.replace(table, variants={n: table.variants[n] for n in names})
    if args.datasets:
        names = args.datasets.split(",")
        if unknown := [name for name in names if name not in table.targets]:
            raise UserError(
                f"--datasets {','.join(unknown)}: {args.table} is of {', '.join(table.targets)}"
            )
        targets = {name: table.targets[name] for name in names}
        table = dataclasses.replace(table, targets=targets)
    if args.methods is not None:
        names = tuple(name for name in args.methods.split(",") if name)
        if len(set(names)) < len(names) or table.method in names:
            raise UserError(
                f"--methods {args.methods}: name each once; {table.method} is in the table anyway"
            )
        for name in names:
            if name == "common" or not name.isidentifier() or not _config(name):
                raise UserError(f"--methods {name}: configs/ has no such method")
        table = dataclasses.replace(table, baselines=names)
    if args.recipe not in recipes(table.method):
        raise UserError(
            f"--recipe {args.recipe}: {table.method} has {', '.join(recipes(table.method))}"
        )
    if others := [name for name in table.baselines if args.recipe not in recipes(name)]:
        print(
            f"--recipe {args.recipe}: left out, as they have no such recipe here: "
            f"{', '.join(others)}"
        )
        kept = tuple(name for name in table.baselines if name not in others)
        table = dataclasses.replace(table, baselines=kept)
    return table


def _some(flag: str, given: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a table's names that a flag asks for, in the table's order."""
    names = given.split(",")
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"{flag} {','.join(unknown)}: the table has {', '.join(known)}")
    return tuple(name for name in known if name in names)


def _config(name: str) -> bool:
    return importlib.util.find_spec(f"configs.{name}") is not None


def reads_text(method: str) -> bool:
    """Whether a method's config names a text tower, and a recipe of its paper."""
    return "text" in importlib.import_module(f"configs.{method}").get_config()


def recipes(method: str) -> tuple[str, ...]:
    """What a method's config can be asked for, besides its own: how papers trained it."""
    if method in LEAD_AGNOSTIC_CONFIGS:
        return ("modern", "paper", "code")
    return ("modern", "paper") if reads_text(method) else ("modern",)


def runs(table: Table, seeds: Sequence[int]) -> list[Run]:
    """Every pre-training of a table."""
    kinds = [(table.method, "trained")] + [(table.method, "shuffled")] * table.shuffled
    kinds += [(name, NAMES.get(name, name)) for name in table.baselines]
    made = [
        Run(method, seed, encoder)
        for method, encoder in kinds
        for seed in (seeds[:1] if table.once and encoder != "trained" else seeds)
    ]
    made += [
        Run(table.method, seed, name, variant=name) for name in table.variants for seed in seeds
    ]
    few = [
        run._replace(encoder=f"{NAMES.get(run.method, run.method)}, {n} leads", leads=n)
        for n in table.lead_sets
        for run in made
        if n != 12
    ]
    return made + few


def recipe(args: argparse.Namespace, table: Table, run: Run) -> Config:
    """The pre-training's config. Where methods are compared, each has as many checkpoints to choose
    from.

    Raises:
      UserError: a recipe that a table of another corpus has not.
    """
    if table.corpus and args.recipe != "modern":
        name = f"configs/{run.method}.py:{table.corpus}"
        raise UserError(f"--recipe {args.recipe}: {name} has a recipe of its own")
    module = importlib.import_module(f"configs.{run.method}")
    text = f"{args.recipe},text={args.text}," if reads_text(run.method) else ""
    if run.method in LEAD_AGNOSTIC_CONFIGS and args.recipe != "modern":
        text = f"{args.recipe},"
    text += f"{table.corpus}," if table.corpus else ""
    config = module.get_config(f"{text}rate={args.rate},seed={run.seed}")
    config.data_dir = args.data_dir
    if run.encoder == "shuffled":
        config.text.shuffle = True
    if run.leads != 12:
        config.model.leads = robustness.SUBSETS[run.leads]
    config.model.update(table.variants.get(run.variant, {}))
    if table.baselines:
        config.eval_every = 5
    return config


def carry_out(table: Table, run: Run, config: Config, folder: Path) -> list[results.Row]:
    """Trains and evaluates what is still to be done; the rows that the table asks for.

    Raises:
      UserError: the folder holds a run of another config or other data.
    """
    stop = Stop()
    if not train.train(config, folder, evaluated=False, stop=stop):
        raise SystemExit(stop.status)  # and has said so
    rows, path, done = [], folder / "evaluated.json", hosts.from_first(evaluated(folder))
    targets = (wanted(table, run, config, dataset) for dataset in table.targets)
    for target in itertools.chain.from_iterable(map(parts, targets)):
        asked = config_lib.to_json(target.evaluate) | {"dataset": target.dataset}
        found = next((part["rows"] for part in done if part["asked"] == asked), None)
        if found is None:
            # One random encoder serves the table.
            controlled = run.encoder == "trained"
            with lock.held(folder):
                opened = hosts.together(functools.partial(open_experiment, target, trains=False))
                found = evaluate.evaluate(opened, folder, controlled=controlled)
            found = [results.plain(row) for row in found]
            done.append({"asked": asked, "rows": found})
            hosts.first_alone(functools.partial(workdir.write_json, path, list(done)))
        rows += [row for row in found if not across.is_gain(row)]
    return [row | {"encoder": run.encoder} if row["encoder"] == "trained" else row for row in rows]


def parts(target: Config) -> list[Config]:
    """What is evaluated and kept at once: the frozen protocols together, and each task of one that
    trains, which may take hours, by itself."""
    asked, split = target.evaluate, []
    if frozen := tuple(name for name in asked.protocols if name in FROZEN):
        split.append(target.copy_and_resolve_references())
        split[0].evaluate.protocols = frozen
    for name, task in itertools.product(asked.protocols, asked.tasks):
        if name not in FROZEN:
            config = target.copy_and_resolve_references()
            config.evaluate.update(protocols=(name,), tasks=(task,), conditions=())
            config.evaluate.update(retrieval=False, controls=("random",))
            split.append(config)
    return split


def compared(table: Table, runs: Sequence[Run], out: Path) -> list[results.Row]:
    """Each seed's comparisons of the table's method with all other encoders, see
    `across.compared`."""
    by_seed: dict[int, list[Predictions]] = {}
    for run in runs:
        for p in predictions.read(out / run.folder / "predictions.npz"):
            wanted = p.protocol in table.protocols and p.task in table.targets.get(p.dataset, ())
            if wanted and not p.condition:
                encoder = run.encoder if p.encoder == "trained" else p.encoder
                by_seed.setdefault(run.seed, []).append(p._replace(encoder=encoder))
    return [
        results.plain(row | {"seed": seed})
        for seed, found in by_seed.items()
        for row in across.compared(found, "trained")
    ]


def evaluated(folder: Path) -> list[dict[str, Any]]:
    """What a table asked of a run, and the rows that came of it: results.json holds those of later
    evaluations, too.

    Raises:
      UserError: the file is damaged.
    """
    path = folder / "evaluated.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if storage.exists(path) else []
        if all({"asked", "rows"} == set(part) for part in found):
            return found
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError):
        pass
    raise UserError(f"{path} is damaged or of an earlier version: delete it to evaluate again")


def wanted(table: Table, run: Run, config: Config, dataset: str) -> Config:
    """The run's config with what a table asks of one dataset. The control with permuted reports is
    examined frozen; baselines, on the test records as they are, and fine-tuned on few labels."""
    config = config.copy_and_resolve_references()
    if table.corpus:  # prompts are written from the reports that it has learnt from, none of these
        config.evaluate.bank = config.dataset
    config.dataset = dataset
    control = run.encoder == "shuffled"
    protocols = [name for name in table.protocols if name in FROZEN or not control]
    if run.encoder != "trained":  # from the random encoder, which is evaluated once
        protocols = [name for name in protocols if name != "supervised"]
    if not reads_text(run.method):
        protocols = [name for name in protocols if name not in READING]
    if dataset not in WITH_WAVES:
        protocols = [name for name in protocols if name != "delineate"]
    elif "delineate" in protocols:
        protocols = ["delineate"]
    config.evaluate.update(
        tasks=table.targets[dataset],
        protocols=tuple(protocols),
        fractions=table.fractions,
        rules=table.rules,
        finetune_rules=table.finetune_rules,
        finetune_leads=table.finetune_leads,
        finetune_fractions=tuple(
            f
            for f in table.finetune_fractions
            if f < 1 or table.everywhere or run.method == table.method
        ),
        controls=table.controls,
        paper=table.method if reads_text(table.method) else "etp",
        conditions=table.conditions if table.everywhere or run.method == table.method else (),
        retrieval=table.retrieval and dataset == "ptb_xl",
    )
    return config


def ranks(runs: Sequence[Run], out: Path) -> str:
    """A line for each encoder: the effective rank of the validation records' embeddings at the end
    of its pre-training, of all seeds."""
    found: dict[str, list[float]] = {}
    for run in runs:
        rows = files.read_lines(out / run.folder / "metrics.jsonl")
        known = [row[RANK] for row in rows if RANK in row]
        found.setdefault(run.encoder, []).extend(known[-1:])
    lines = [f"effective rank of validation embeddings; below {health.LEAST_RANK:.0f}: collapsed"]
    for encoder, values in found.items():
        if values:
            lines.append(f"  {encoder:<18}{statistics.mean(values):.1f}, lowest {min(values):.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
