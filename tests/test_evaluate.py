"""`python -m ecg_jax.evaluate`: other tasks and datasets than the training's; what is refused."""

import dataclasses
import json
import shutil
import sys

import agreement
import jax
import numpy as np
import pytest

from ecg_jax import evaluate
from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError
from ecg_jax.evaluation import examine, robustness
from ecg_jax.evaluation.figures import predictions, results
from ecg_jax.evaluation.protocols import finetune
from ecg_jax.report import fill
from ecg_jax.run import config as config_lib
from ecg_jax.run import workdir
from ecg_jax.run.experiment import open_experiment
from ecg_jax.runtime import parallel
from ecg_jax.runtime.checkpoint import Checkpoints
from ecg_jax.tools import show_prompts
from tfds_builders import prepare
from tfds_builders.simulated.layouts import write_mit_bih


@pytest.fixture(scope="module", autouse=True)
def one_device():
    make, patch = parallel.make_mesh, pytest.MonkeyPatch()
    patch.setattr(parallel, "make_mesh", lambda devices=None: make(devices or jax.devices()[:1]))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def trained(simulated, tmp_path_factory):
    """A run's folder, its best checkpoint that of the start."""
    return a_run(simulated, tmp_path_factory)


@pytest.fixture(scope="module")
def trained_on_windows(simulated, tmp_path_factory):
    """The same, of records as long as MIT-BIH's windows."""
    return a_run(simulated, tmp_path_factory, seconds=10.0)


def a_run(simulated, tmp_path_factory, **fields):
    config = agreement.small(simulated)
    config.evaluate.retrieval = False
    config.update(fields)
    experiment = open_experiment(config)
    folder = tmp_path_factory.mktemp("run")
    workdir.claim(folder, experiment)
    best = Checkpoints(folder / "checkpoints" / "best", keep=1)
    best.save(1, evaluate.frozen(*experiment.init(jax.random.key(1))), {"select": 0.5})
    best.close()
    return folder


def run(monkeypatch, program, folder, *arguments):
    monkeypatch.setattr(sys, "argv", ["program", f"--workdir={folder}", *arguments])
    program.main()
    return json.loads((folder / "results.json").read_text())


def test_rows_of_other_protocols_stay(trained, monkeypatch, capsys):
    first = run(monkeypatch, evaluate, trained, "--protocols", "zero_shot")
    assert {row["protocol"] for row in first} == {"zero_shot"}
    both = run(monkeypatch, evaluate, trained, "--protocols", "knn")
    assert {row["protocol"] for row in both} == {"zero_shot", "knn"}
    again = run(monkeypatch, evaluate, trained, "--protocols", "knn")
    assert len(again) == len(both)
    kept = [p.key for p in predictions.read(trained / "predictions.npz")]
    assert len(set(kept)) == len(kept) > 0
    old = [row | {"step": 7} for row in again if row["protocol"] == "zero_shot"]
    results.write(old, trained / "results.json")
    last = run(monkeypatch, evaluate, trained, "--protocols", "knn")
    assert {row["protocol"] for row in last} == {"knn"}
    assert f"{len(old)} rows of another checkpoint" in capsys.readouterr().out
    assert "Not measured" in (trained / "report.html").read_text()


def test_a_report_that_fails_loses_nothing(trained, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(trained, tmp_path / "run")
    (folder / "pictures.npz").write_text("damaged")
    with pytest.raises(
        UserError, match=r"pictures.npz is damaged .*: remove it and evaluate again"
    ):
        run(monkeypatch, evaluate, folder, "--protocols", "knn")
    rows = results.read(folder / "results.json")
    assert "knn" in {row["protocol"] for row in rows}
    assert "knn" in {p.protocol for p in predictions.read(folder / "predictions.npz")}
    shown = capsys.readouterr().out
    assert "AUROC" in shown.upper() and f"written: {folder / 'results.json'}" in shown


def test_records_and_metrics_that_this_project_did_not_make(trained, tmp_path, monkeypatch):
    """A dataset of one's own is drawn behind those known here; a line of metrics.jsonl that was cut
    short when the run was killed is not read."""
    folder = shutil.copytree(trained, tmp_path / "run")
    rows = run(monkeypatch, evaluate, folder, "--protocols", "knn")
    results.write(
        rows + [row | {"dataset": "own_records"} for row in rows], folder / "results.json"
    )
    (folder / "metrics.jsonl").write_bytes(b'{"step": 1, "loss": 2.5}\n{"step": 2, "loss": 1')
    content = fill.content(folder, workdir.read(folder)[1])
    for shown in content.rows, content.compared:
        datasets = [row["dataset"] for row in shown]
        assert datasets == sorted(datasets, reverse=True), "own_records stand behind simulated"
        assert 2 * datasets.count("own_records") == len(datasets) > 0
    assert len(content.rows) + len(content.compared) == 2 * len(rows)
    assert [(row["step"], row["loss"]) for row in content.history] == [(1, 2.5)]


def test_fine_tuning_and_rules_are_asked_for(trained, tmp_path, monkeypatch):
    folder = shutil.copytree(trained, tmp_path / "run")
    asked = ("--finetune_fractions", "0.2,0.5", "--rules", "corrected", "--fractions", "0.5")
    monkeypatch.setattr(examine, "examine", lambda subject: iter(found.append(subject) or ()))
    found = []
    with pytest.raises(UserError, match="no figures came of"):
        run(monkeypatch, evaluate, folder, "--protocols", "finetune", *asked)
    config = found[0].material.experiment.config.evaluate
    assert tuple(config.finetune_fractions) == (0.2, 0.5)
    assert (tuple(config.rules), tuple(config.fractions)) == (("corrected",), (0.5,))


def test_another_config_than_the_runs_is_refused(trained):
    config, _ = workdir.read(trained)
    config.normalize = "lead"
    with pytest.raises(UserError, match=r"was trained otherwise: normalize is 'millivolt' there"):
        evaluate.check_records(open_experiment(config), trained)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "sper"], r"simulated has no label set 'sper'.*did you mean super"),
        (["--fractions", "0.1,x"], r"--fractions 0.1,x: not numbers"),
        (["--finetune_fractions", "x"], r"--finetune_fractions x: not numbers"),
        (["--rules", "mine"], r"unknown rule 'mine'"),
        (["--rules", "", "--protocols", "finetune"], r"none of them is in evaluate.rules="),
        (["--fractions", "0"], r"evaluate.fractions=.*above 0 and at most 1"),
        (["--dataset", "mit_bih"], r"--dataset mit_bih needs --tasks"),
        (["--dataset", "mit_bih", "--tasks", "aami"], r"mit_bih at 100 Hz is not prepared"),
        (["--dataset", "nope", "--tasks", "aami"], "no dataset 'nope': there are ptb_xl, cpsc2018"),
    ],
)
def test_one_line_for_what_is_wrong(trained, monkeypatch, arguments, message):
    with pytest.raises(UserError, match=message):
        run(monkeypatch, evaluate, trained, *arguments)


def test_evaluation_prepares_nothing(trained, tmp_path, monkeypatch):
    folder = shutil.copytree(trained, tmp_path / "run")
    saved = json.loads((folder / "config.json").read_text())
    saved["config"]["build"] = True
    (folder / "config.json").write_text(json.dumps(saved))
    with pytest.raises(UserError, match="simulated at 100 Hz is not prepared in"):
        run(monkeypatch, evaluate, folder, "--data_dir", str(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_another_number_of_devices_than_that_of_the_training(trained, monkeypatch):
    config, _ = workdir.read(trained)
    three = parallel.make_mesh(jax.devices()[:3])
    monkeypatch.setattr(parallel, "make_mesh", lambda: three)
    with pytest.raises(UserError, match="do not divide over 3 devices"):
        open_experiment(config)
    experiment = open_experiment(config, trains=False)
    split = experiment.validation.take(range(7))
    config.evaluate.finetune.update(min_updates=1, epochs=1, learning_rates=(1e-3,))
    tuner = finetune.Finetuner(experiment, "finetune")
    stream, _ = tuner._batches(split, split.labels["super"], 0)
    assert next(stream.batches(0, 1)).ecg.shape[0] == 33  # 11 on each


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.json", "{}", "no list of rows"),
        ("results.json", "[3]", "row 0: no object"),
        ("results.json", '[{"task": "super"}]', "row 0: lacks dataset, split"),
        ("results.json", "[" * 100_000, "is damaged"),
        ("results.json", '"value": "0.5"', "value is '0.5', not a number"),
        ("results.json", '"n": 3.5', "n is '3.5', not a whole number"),
        ("results.json", '"task": 3', "task is '3', not a text"),
        ("results.json", '"value": NaN', "value is nan"),
        ("predictions.npz", "x", "predictions.npz is damaged"),
    ],
)
def test_files_changed_by_hand_are_found_before_the_work(trained, tmp_path, name, content, message):
    if content.startswith('"'):
        row = dict.fromkeys(results.COLUMNS, "x") | dict.fromkeys(results.COLUMNS[7:-1], 0.5)
        row["n"] = 3
        results.write([row], tmp_path / name)
        assert results.read(tmp_path / name)
        field, _, value = content.partition(": ")
        row[json.loads(field)] = json.loads(value)
        content = json.dumps([row])
    (tmp_path / name).write_text(content)
    shutil.copy(trained / "config.json", tmp_path)
    experiment = open_experiment(workdir.read(trained)[0])
    with pytest.raises(UserError, match=message):
        evaluate.evaluate(experiment, tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_an_evaluation_draws_as_the_run_did(trained, tmp_path):
    saved = json.loads((trained / "config.json").read_text())
    for name, value in (("random", "rbg"), ("x64", True), ("dtype", "bfloat16")):
        numerics = {**saved["numerics"], name: value}
        (tmp_path / "config.json").write_text(json.dumps({**saved, "numerics": numerics}))
        opened = open_experiment(workdir.read(trained)[0])
        if name == "dtype":  # of the devices, which may be others
            evaluate.check_records(opened, tmp_path)
            continue
        with pytest.raises(UserError, match=f"trained otherwise: {name} was {value} there"):
            evaluate.check_records(opened, tmp_path)


def test_an_encoder_never_sees_records_of_another_rate(trained, monkeypatch, simulated, tmp_path):
    """Records at 500 Hz in the folder of those at 100 Hz are refused by their own metadata."""
    prepared = tmp_path / "simulated" / "rate100"
    shutil.copytree(simulated / "simulated" / "rate100", prepared)
    (metadata,) = prepared.glob("*/metadata.json")
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"rate": 500}))
    with pytest.raises(UserError, match=r"rate is 500, needed is 100"):
        run(monkeypatch, evaluate, trained, "--data_dir", str(tmp_path))


def test_leads_that_the_encoder_was_trained_with_are_named(trained, capsys):
    experiment = open_experiment(workdir.read(trained)[0])
    test = experiment.test
    mask = np.zeros_like(test.lead_mask)
    mask[:, [LEADS.index("II"), LEADS.index("V1")]] = True
    experiment.__dict__["test"] = dataclasses.replace(test, lead_mask=mask)
    assert workdir.read(trained)[1]["leads"] == list(LEADS)
    assert evaluate.known_leads(experiment, LEADS) is experiment
    line = capsys.readouterr().out
    assert line.startswith("simulated test has the leads II, V1; I, III, aVR, aVL,")
    assert "are zero" in line
    with pytest.raises(UserError, match="trained on I, III: it has seen none of them"):
        evaluate.known_leads(experiment, ("I", "III"))


def test_leads_that_the_encoder_has_never_seen_are_zero_and_named(trained, capsys):
    experiment = open_experiment(workdir.read(trained)[0])
    two = evaluate.known_leads(experiment, ("II", "V1"))
    said = "simulated: I, III, aVR, aVL, aVF, V2, V3, V4, V5, V6 are left out of its records, as"
    assert said in capsys.readouterr().out
    known = np.isin(LEADS, ("II", "V1"))
    for split in ("train", "validation", "test"):
        before, after = getattr(experiment, split), getattr(two, split)
        assert (after.lead_mask == known).all() and before.lead_mask.all()
        assert (after.ecg[..., known] == before.ecg[:][..., known]).all()
        assert before.ecg[:].any(axis=(0, 1)).all() and not after.ecg[..., ~known].any()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_leads_that_only_other_records_have_are_zero_too(trained, capsys, split):
    experiment = open_experiment(workdir.read(trained)[0])
    for name in {"train", "validation", "test"} - {split}:
        experiment.__dict__[name] = robustness.only(getattr(experiment, name), ("II", "V1"))
    two = evaluate.known_leads(experiment, ("II", "V1"))
    assert "simulated: I, III, aVR, aVL," in capsys.readouterr().out
    for records in (two.train, two.validation, two.test):
        assert records.leads == ["II", "V1"]
        assert not records.ecg[..., ~np.isin(LEADS, ("II", "V1"))].any()


def test_other_records_without_any_known_lead_are_named(trained):
    experiment = open_experiment(workdir.read(trained)[0])
    mask = experiment.validation.lead_mask.copy()
    mask[0, [LEADS.index("II"), LEADS.index("V1")]] = False
    records = dataclasses.replace(experiment.validation, lead_mask=mask)
    experiment.__dict__["validation"] = records
    with pytest.raises(UserError, match="simulated validation: 1 of "):
        evaluate.known_leads(experiment, ("II", "V1"))


def test_nothing_to_evaluate_leaves_what_there_is(trained, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    (folder / "results.json").write_text("[ ]")
    config, _ = workdir.read(folder)
    config.evaluate.update(protocols=(), retrieval=False)
    assert evaluate.evaluate(open_experiment(config), folder) == []
    assert "nothing to evaluate" in capsys.readouterr().out
    config.evaluate.protocols = ("zero_shot",)
    monkeypatch.setattr(evaluate.examine, "examine", lambda subject: iter(()))
    with pytest.raises(UserError, match="no figures came of zero_shot: ask for other"):
        evaluate.evaluate(open_experiment(config), folder)
    assert (folder / "results.json").read_text() == "[ ]"


@pytest.fixture(scope="module")
def two_datasets(simulated, tmp_path_factory):
    """Both the training's dataset and MIT-BIH, of simulated records, in one data folder."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(simulated / "simulated", folder / "simulated")
    published = tmp_path_factory.mktemp("mitdb")
    write_mit_bih(published, seconds=35)
    options = ["mit_bih", "--source", str(published), "--rate", "100", "--data_dir", str(folder)]
    assert prepare.main(options) == 0
    return folder


def test_transfer(trained_on_windows, two_datasets, monkeypatch, capsys):
    """An encoder on a dataset that it was not trained on: labels, prompts and leads of that one,
    and one page of both."""
    trained = trained_on_windows
    run(monkeypatch, evaluate, trained, "--protocols", "zero_shot")
    capsys.readouterr()
    asked = ("--dataset", "mit_bih", "--tasks", "aami", "--protocols", "zero_shot,linear_probe")
    rows = run(monkeypatch, evaluate, trained, *asked, "--data_dir", str(two_datasets))
    ours = [row for row in rows if row["dataset"] == "mit_bih"]
    assert {row["protocol"] for row in ours} == {"zero_shot", "linear_probe"}
    assert {row["label"] for row in ours} >= {"N", "S", "V", "macro"}
    page = (trained / "report.html").read_text()
    for name in ("mit_bih aami", "simulated super"):
        assert f"<summary>{name}: validation records" in page
        assert f"<summary>{name}: t-SNE" in page
        assert f"<h3>Best cases of {name}" in page
    shown = capsys.readouterr().out
    assert "mit_bih test has the leads II, V1, V5; I, III, aVR" in shown
    assert "could not be checked" not in shown
    shutil.move(two_datasets / "simulated", two_datasets / "away")
    run(monkeypatch, evaluate, trained, *asked, "--data_dir", str(two_datasets))
    shutil.move(two_datasets / "away", two_datasets / "simulated")
    assert (
        "whether test records were pre-trained on could not be checked" in capsys.readouterr().out
    )


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_test_record_that_was_pre_trained_on_fails_the_run(
    split, trained_on_windows, two_datasets, monkeypatch
):
    config, _ = workdir.read(trained_on_windows)
    config.update(data_dir=str(two_datasets), dataset="mit_bih")
    config.evaluate.tasks = ("aami",)
    experiment = open_experiment(config)
    seen = dataclasses.replace(experiment.test.take([3]), dataset="simulated", split=split)
    none = seen.take(np.arange(0))
    monkeypatch.setattr(
        evaluate.records, "load", lambda *args, **__: seen if args[3] == split else none
    )
    with pytest.raises(UserError, match=f"1 recordings of simulated {split} are also in mit_bih"):
        evaluate.check_transfer(experiment, "simulated")


def test_prompts_of_another_dataset(trained_on_windows, two_datasets, monkeypatch, capsys):
    trained = trained_on_windows
    asked = ["--workdir", str(trained), "--dataset", "mit_bih", "--data_dir", str(two_datasets)]
    monkeypatch.setattr(sys, "argv", ["show_prompts", *asked, "--tasks", "aami"])
    show_prompts.main()
    assert "mit_bih aami, " in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["show_prompts", *asked])
    with pytest.raises(UserError, match="--dataset mit_bih needs --tasks"):
        show_prompts.main()


def test_prompts_are_shown_with_their_validation_figures(trained, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["show_prompts", f"--workdir={trained}"])
    show_prompts.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("simulated super, ")
    assert lines[0].endswith("validation records")
    assert any(line.startswith("serves the task: ") for line in lines)
    assert any(line.startswith("  0.") and "sinus rhythm" in line for line in lines)


def test_a_config_of_before_has_todays_fields(trained):
    saved = json.loads((trained / "config.json").read_text())["config"]
    for name in config_lib.ADDED | config_lib.ADDED_WITH_TEXT:
        *groups, field = name.split(".")
        place = saved
        for group in groups:  # one that went before took its fields with it
            place = place.get(group, {})
        place.pop(field, None)
    config_lib.check(config_lib.from_json(saved))
