"""Commands that train and evaluate a table: what they run, that they go on, what they print."""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import agreement
import jax
import numpy as np
import pytest

from ecg_jax import evaluate, reproduce, train
from ecg_jax.errors import UserError
from ecg_jax.evaluation import controls
from ecg_jax.evaluation import published_tables as tables
from ecg_jax.evaluation.papers import published
from ecg_jax.evaluation.papers.beside import beside
from ecg_jax.run import config as config_lib
from ecg_jax.run.experiment import open_experiment
from ecg_jax.runtime import parallel
from ecg_jax.training import feed
from launch import local

ROOT = Path(__file__).parent.parent


@pytest.fixture
def table(monkeypatch, simulated):
    """A table of simulated records, with tiny networks."""
    agreement.shallow(monkeypatch.setattr)
    table = tables.Table("etp", {"simulated": ("super",)}, ("zero_shot",), shuffled=True)

    def recipe(args, table, run):
        if run.method != "etp":
            config = agreement.tiny(run.method, simulated)
            config.update(seed=run.seed, epochs=1, seconds=2.5, eval_every=1)
            return config
        config = agreement.small(simulated)
        config.update(seed=run.seed, epochs=1)
        config.text.shuffle = run.encoder == "shuffled"
        return config

    monkeypatch.setattr(reproduce, "TABLES", {"etp-table2": table})
    monkeypatch.setattr(reproduce, "recipe", recipe)
    monkeypatch.setattr(reproduce, "prepare", lambda args, dataset: None)
    mesh = parallel.make_mesh(jax.devices()[:1])
    monkeypatch.setattr(parallel, "make_mesh", lambda: mesh)
    return table


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["reproduce", "etp-table2", *arguments])
    reproduce.main()


def test_a_table_is_trained_evaluated_and_not_done_twice(table, tmp_path, monkeypatch, capsys):
    run(monkeypatch, "--out", str(tmp_path), "--seeds", "3")
    rows = json.loads((tmp_path / "results.json").read_text())
    assert {row["encoder"] for row in rows} == {"trained", "shuffled", "random"}
    assert {row["seed"] for row in rows} == {3}
    assert {row["rule"] for row in rows} == {"corrected", "paper"}
    against = [(row["encoder"], row["against"]) for row in rows if row.get("against")]
    assert ("trained", "random") in against and ("trained", "shuffled") in against
    lines = (tmp_path / "figures.csv").read_text().splitlines()
    assert len(lines) == 1 + len(rows)
    assert lines[0].startswith("task,dataset,split,protocol,rule,fraction,condition,encoder,")
    page = (tmp_path / "report.html").read_text()
    assert "etp-table2, 1 seed" in page
    assert page.count("<p>Of the run etp_3 (seed 3).</p>") == 6
    assert "<h3>Best cases of simulated super</h3>" in page
    folders = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert folders == ["etp_3", "shuffled_3"]
    lines = capsys.readouterr().out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("etp-table2, seeds 3"))
    shown = [line.split() for line in lines[first + 2 : -1]]
    assert ["super", "zero_shot", "corrected", "shuffled", "auroc"] in [line[:5] for line in shown]
    assert [line[0] for line in shown[-3:]] == ["effective", "trained", "shuffled"]

    # What is evaluated in a run's folder later is no part of the table.
    later = tmp_path / "etp_3" / "results.json"
    later.write_text(json.dumps([row | {"value": 0.123} for row in json.loads(later.read_text())]))
    for module, name in ((train, "make_dispatch"), (evaluate, "evaluate")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, lambda *_, **__: lambda *_: pytest.fail("done again"))
            run(monkeypatch, "--out", str(tmp_path), "--seeds", "3")
    assert capsys.readouterr().out.splitlines()[-1].startswith("written: ")
    assert json.loads((tmp_path / "results.json").read_text()) == rows

    make = reproduce.recipe

    def other(*args):
        config = make(*args)
        config.optimizer.learning_rate = 0.5
        return config

    monkeypatch.setattr(reproduce, "recipe", other)
    with pytest.raises(UserError, match=r"holds another run: optimizer.learning_rate is"):
        run(monkeypatch, "--out", str(tmp_path), "--seeds", "3")


def test_two_processes_make_one_table(simulated, tmp_path):
    """Both take part in every run: there is one of each, and one writes."""
    program = [sys.executable, "tests/small_table.py", str(simulated), "etp-table2"]
    launch = [sys.executable, "-m", "launch.local", "--processes=2", "--devices=1", "--"]
    done = subprocess.run(
        [*launch, *program, f"--out={tmp_path / 'out'}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = [line for line in done.stdout.splitlines() if line.startswith("written: ")]
    assert len(written) == len(set(written)) == 3  # two by the evaluation, and the table
    lines = (tmp_path / "out/etp_3/metrics.jsonl").read_text().splitlines()
    steps = [row["step"] for row in map(json.loads, lines) if "loss" in row]
    assert steps == list(range(1, len(steps) + 1))
    rows = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["encoder"] for row in rows} == {"trained", "random"}
    assert len({json.dumps(row, sort_keys=True) for row in rows}) == len(rows)


def test_two_processes_of_different_tables_are_refused(simulated, tmp_path):
    port = local.free_port()
    program = [sys.executable, "tests/small_table.py", str(simulated), "etp-table2"]
    flags = [f"--coordinator=127.0.0.1:{port}", "--processes=2", f"--out={tmp_path / 'out'}"]
    running = [
        subprocess.Popen(
            [*program, *flags, f"--process={i}", f"--tasks={task}"],
            cwd=ROOT,
            env=os.environ | local.environment(1, 0, i) | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, task in enumerate(("super", "sub"))
    ]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 2
        assert "hosts with different options: tasks is 'super' on process 0" in errors
    assert not (tmp_path / "out").exists()


def test_baselines_stand_beside_the_method_and_their_own_papers(
    table, tmp_path, monkeypatch, capsys
):
    two = dataclasses.replace(
        table, protocols=("linear_probe",), shuffled=False, baselines=("simclr", "byol")
    )
    monkeypatch.setattr(reproduce, "TABLES", {"etp-table2": two})
    run(monkeypatch, "--out", str(tmp_path), "--seeds", "3", "--methods", "simclr")
    rows = json.loads((tmp_path / "results.json").read_text())
    assert {row["encoder"] for row in rows} == {"trained", "random", "SimCLR"}
    assert not (tmp_path / "byol_3").exists()
    assert "SimCLR" in (tmp_path / "report.html").read_text()
    assert "SimCLR" in capsys.readouterr().out


@pytest.mark.parametrize("name", tables.TABLES)
@pytest.mark.parametrize("recipe", ["modern", "paper"])
def test_the_recipes_of_a_table(name, recipe):
    table = tables.TABLES[name]
    args = argparse.Namespace(recipe=recipe, rate=100, text="minilm", data_dir="here")
    for run in reproduce.runs(table, [0, 4]):
        if table.corpus and recipe != "modern":
            with pytest.raises(UserError, match="has a recipe of its own"):
                reproduce.recipe(args, table, run)
            continue
        config = reproduce.recipe(args, table, run)
        config_lib.check(config)
        of = "w2v_cmsc" if run.method in tables.LEAD_AGNOSTIC_CONFIGS else run.method
        assert (config.method, config.seed, config.data_dir) == (of, run.seed, "here")
        assert ("text" in config) == (run.method in ("etp", "mets"))
        assert ("text" in config and config.text.shuffle) == (run.encoder == "shuffled")
        if table.baselines:
            assert config.eval_every == 5
        if "text" in config:
            assert config.text.tower == "minilm"
            assert config.text.language == ("original" if recipe == "paper" else "english")


def test_forms_of_a_method_are_trained_apart_and_judged_by_what_a_dataset_has():
    table, args = tables.TABLES["beat-ssl"], argparse.Namespace(recipe="modern", rate=100)
    args.text, args.data_dir = "minilm", "here"
    made = reproduce.runs(table, [0, 1])
    assert len({run.folder for run in made}) == len(made) == 2 * (1 + 1 + 5)
    hard = next(run for run in made if run.variant == "hard+hard")
    assert hard.folder == "beat_ssl_hard_hard_0" and hard.encoder == "hard+hard"
    config = reproduce.recipe(args, table, hard)
    assert (config.model.rhythm, config.model.beat) == ("identity", "class")
    asked = {d: reproduce.wanted(table, hard, config, d).evaluate for d in table.targets}
    assert asked["ptb_xl"].protocols == ("linear_probe",)
    assert asked["ludb"].protocols == ("delineate",)


def test_names_of_datasets_and_methods(table, monkeypatch):
    with pytest.raises(UserError, match="--datasets cpsc2018: etp-table2 is of simulated"):
        run(monkeypatch, "--datasets", "cpsc2018")
    with pytest.raises(UserError, match="--variants hard: the table has "):
        run(monkeypatch, "--variants", "hard")
    with pytest.raises(UserError, match="--methods simclear: configs/ has no such method"):
        run(monkeypatch, "--methods", "simclear")


def test_a_training_that_was_stopped_is_not_evaluated(table, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "train", lambda *_, evaluated, stop: False)
    monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: pytest.fail("evaluated"))
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "--out", str(tmp_path), "--seeds", "3")
    assert ended.value.code == 75
    assert not (tmp_path / "results.json").exists()


def test_what_was_evaluated_is_kept_target_by_target(table, tmp_path, monkeypatch):
    two = dataclasses.replace(table, targets={"simulated": ("super",), "other": ("super",)})
    monkeypatch.setattr(train, "train", lambda *_, evaluated, stop: True)
    asked = []

    def evaluated(experiment, folder, controlled):
        assert controlled
        if asked:
            raise KeyboardInterrupt
        asked.append(experiment.dataset)
        return []

    monkeypatch.setattr(evaluate, "evaluate", evaluated)
    monkeypatch.setattr(reproduce, "open_experiment", lambda config, **_: config)
    first = reproduce.Run("etp", 3, "trained")
    config = reproduce.recipe(None, None, first)
    with pytest.raises(KeyboardInterrupt):
        reproduce.carry_out(two, first, config, tmp_path)
    done = reproduce.evaluated(tmp_path)
    assert [part["asked"]["dataset"] for part in done] == ["simulated"]
    for damaged in ('[{"dataset"', '[{"dataset": "simulated"}]', "[3]", "3"):
        (tmp_path / "evaluated.json").write_text(damaged)
        with pytest.raises(UserError, match=r"evaluated.json is damaged .*: delete it"):
            reproduce.carry_out(two, first, config, tmp_path)


def test_shuffled_reports_are_those_of_others(simulated):
    config = agreement.small(simulated)
    plain = feed.load(open_experiment(config))[0]
    config.text.shuffle = True
    shuffled = feed.load(open_experiment(config))[0]
    assert (plain.split.ecg == shuffled.split.ecg).all()
    ours, theirs = (np.asarray(data.tables.text) for data in (plain, shuffled))
    assert sorted(ours) == sorted(theirs)
    assert (ours != theirs).mean() > 0.5


def test_every_published_table_has_its_command():
    papers = {name for name in {row["table"] for row in published.load()} if name[:7] != "context"}
    assert papers <= set(tables.TABLES)


def test_published_figures_stand_beside_ours():
    wanted = dict(table="etp-table2", role="trained", metric="auroc", label="macro")
    row = next(row for row in published.load() if wanted.items() <= row.items())
    ours = {**row, "encoder": "trained", "condition": "", "split": "test", "chance": 0.5}
    figures = (
        {"value": 0.8, "ci_low": 0.7, "ci_high": 0.85},
        {"value": 0.6, "ci_low": 0.5, "ci_high": 0.75},
        {"value": 0.7, "ci_low": None, "ci_high": None},  # no interval
    )
    rows = [ours | figure | {"seed": seed} for seed, figure in enumerate(figures)]
    assert (
        beside(rows, "etp-table2")
        .splitlines()[1]
        .endswith(f"0.700 ± 0.100, interval ± 0.100, chance 0.500, {row['value']:.3f} in the paper")
    )


def test_all_of_a_table_are_judged_by_its_papers_rule():
    args = argparse.Namespace(recipe="modern", rate=100, text="minilm", data_dir="here")
    for name, paper in (("etp-table1", "etp"), ("mets-table1", "mets")):
        table = dataclasses.replace(tables.TABLES[name], baselines=("simclr", "mets", "etp"))
        for run in reproduce.runs(table, [0]):
            config = reproduce.recipe(args, table, run)
            assert reproduce.wanted(table, run, config, "ptb_xl").evaluate.paper == paper


def test_a_table_of_another_corpus_reads_that_one_alone():
    table = tables.TABLES["mimic"]
    args = argparse.Namespace(recipe="modern", rate=100, text="minilm", data_dir="here")
    for run in reproduce.runs(table, [0]):
        config = reproduce.recipe(args, table, run)
        assert config.dataset == "mimic_iv_ecg"
        for dataset in ("ptb_xl", "cpsc2018"):
            target = reproduce.wanted(table, run, config, dataset)
            assert (target.dataset, target.evaluate.bank) == (dataset, "mimic_iv_ecg")


def test_controls_are_examined_frozen_and_on_harder_records():
    table = tables.TABLES["corrected"]
    args = argparse.Namespace(recipe="modern", rate=100, text="minilm", data_dir="here")
    run = reproduce.Run("etp", 0, "shuffled")
    asked = reproduce.wanted(table, run, reproduce.recipe(args, table, run), "ptb_xl").evaluate
    assert asked.protocols == ("zero_shot", "linear_probe", "knn")
    assert asked.conditions == ("all",)


def test_parts_of_a_table_and_what_is_asked_for_of_it(monkeypatch):
    given = argparse.Namespace(
        table="ptb-xl", datasets=None, methods="simclr", recipe="modern", rate=100, text="minilm"
    )
    given.data_dir, given.tasks, given.protocols = "here", "rhythm,super", "finetune,knn"
    given.variants = None
    table = reproduce.narrowed(given)
    assert table.targets == {"ptb_xl": ("super", "rhythm")}
    assert table.protocols == ("knn", "finetune")
    runs = reproduce.runs(table, [4, 5])
    assert [run.folder for run in runs] == ["etp_4", "etp_5", "shuffled_4", "simclr_4"]
    asked = {}
    for run in (runs[0], *runs[2:]):
        target = reproduce.wanted(table, run, reproduce.recipe(given, table, run), "ptb_xl")
        asked[run.encoder] = [part.evaluate for part in reproduce.parts(target)]
    of = {name: [(e.protocols, e.tasks) for e in found] for name, found in asked.items()}
    frozen = (("knn",), ("super", "rhythm"))
    tuned = [(("finetune",), ("super",)), (("finetune",), ("rhythm",))]
    assert of == {"trained": [frozen, *tuned], "shuffled": [frozen], "SimCLR": [frozen, *tuned]}
    assert asked["trained"][1].finetune_fractions == (0.05, 1.0)
    assert asked["SimCLR"][1].finetune_fractions == (0.05,)
    assert asked["trained"][0].controls == controls.NAMES
    assert asked["trained"][1].controls == ("random",)
    for flag, name in (("tasks", "supr"), ("protocols", "probe")):
        wrong = argparse.Namespace(**{**vars(given), flag: name})
        with pytest.raises(UserError, match=f"--{flag} {name}: the table has "):
            reproduce.narrowed(wrong)


def test_a_table_by_class_is_printed_by_class():
    wanted = dict(table="etp-table2", role="trained")
    theirs = [row for row in published.load() if wanted.items() <= row.items()]
    ours = {"encoder": "trained", "condition": "", "split": "test", "chance": 0.5, "seed": 0}
    ours |= {"value": 0.7, "ci_low": 0.6, "ci_high": 0.8}
    rows = [row | ours for row in theirs] + [theirs[0] | ours | {"label": "XYZ"}]
    lines = beside(rows, "etp-table2").splitlines()[1:]
    assert len(lines) == len(theirs)
    assert all(line.endswith("in the paper") for line in lines)
    assert sum("zero_shot, HYP" in line for line in lines) == 3


def test_ranks_at_the_end_of_every_run(tmp_path):
    runs = [reproduce.Run("etp", seed, "trained") for seed in (0, 1, 2)]
    for run, values in zip(runs, ((3.0, 40.0), (8.0, 20.0, 30.0), ()), strict=True):
        rows = [{"step": 1, "loss": 2.0}, *({reproduce.RANK: value} for value in values)]
        (tmp_path / run.folder).mkdir()
        text = "\n".join(json.dumps(row) for row in rows)
        (tmp_path / run.folder / "metrics.jsonl").write_text(text)
    runs.append(reproduce.Run("etp", 0, "shuffled"))  # without a folder
    assert reproduce.ranks(runs, tmp_path).splitlines()[1:] == [
        "  trained           35.0, lowest 30.0"
    ]


@pytest.mark.parametrize("seeds", ["", "a", "0;1", "0,0", "-1"])
def test_bad_seeds(table, monkeypatch, seeds):
    with pytest.raises(UserError, match=r"not different whole numbers, such as 0,1,2"):
        run(monkeypatch, "--seeds", seeds)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("simclr,simclr", "name each once; etp is in the table anyway"),
        ("etp", "name each once; etp is in the table anyway"),
        ("common", "--methods common: configs/ has no such method"),
        ("no_such", "--methods no_such: configs/ has no such method"),
    ],
)
def test_bad_methods(table, monkeypatch, methods, message):
    with pytest.raises(UserError, match=message):
        run(monkeypatch, "--methods", methods)


def test_baselines_have_no_paper_recipe(table, capsys):
    args = argparse.Namespace(
        table="etp-table2",
        datasets=None,
        methods="mets,simclr",
        recipe="paper",
        tasks=None,
        protocols=None,
        variants=None,
    )
    assert reproduce.narrowed(args).baselines == ("mets",)
    assert "left out, as they have no such recipe here: simclr" in capsys.readouterr().out
