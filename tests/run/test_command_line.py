"""Wrong input gives one line and exit status 2, and leaves nothing behind."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ecg_jax.errors import UserError
from ecg_jax.run import config as config_lib
from ecg_jax.run.experiment import open_experiment, report_texts

ROOT = Path(__file__).parents[2]


def parse(*argv):
    return config_lib.parse(["train", *argv], "usage")


def test_arguments_and_overrides():
    line = parse(
        "--config=configs/etp.py:rate=100,text=minilm,seed=3",
        "--workdir=/tmp/run",
        "--config.optimizer.learning_rate=0.01",
        "--config.evaluate.tasks=('super','sub')",
    )
    config = line.config
    assert (config.rate, config.text.tower, config.seed) == (100, "minilm", 3)
    assert config.optimizer.learning_rate == 0.01
    assert config.evaluate.tasks == ("super", "sub")
    assert line.workdir == Path("/tmp/run")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--config FILE"),
        (["--config=configs/nope.py", "--workdir=x"], "no such config file: configs/nope.py"),
        (["--config", "configs/etp.py"], "--workdir DIR is missing"),
        (["--config=configs/etp.py:demoo", "--workdir=x"], "unknown config argument 'demoo'"),
        (["--config=configs/etp.py:rate=250", "--workdir=x"], "100 and 500 Hz"),
        (["--config=configs/etp.py:rate=a", "--workdir=x"], "not a whole number"),
        (["--config=configs/etp.py:paper,modern", "--workdir=x"], "choose one"),
        (
            ["--config=configs/etp.py", "--workdir=x", "--config.optimizer.learnin_rate=1"],
            "no field 'optimizer.learnin_rate' .* did you mean optimizer.learning_rate",
        ),
        (["--config=configs/etp.py", "--workdir=x", "--config.epochs=many"], "epochs"),
        (["--config=configs/etp.py", "--workdir=x", "--wrkdir=y"], "wrkdir"),
        (["--config=configs/etp.py", "--workdir=x", "stray"], "unknown argument 'stray'"),
    ],
)
def test_a_wrong_command_line(argv, message):
    with pytest.raises(UserError, match=message):
        parse(*argv)


def test_help_lists_flags_configs_and_the_fields_of_a_config(capsys):
    for argv in (["--help"], ["--config", "configs/etp.py:rate=100", "-h"]):
        with pytest.raises(SystemExit) as end:
            parse(*argv)
        assert end.value.code == 0
        shown = capsys.readouterr().out
        assert "--workdir" in shown and "etp, " in shown and "simclr" in shown
        fields = dict(re.findall(r"^  ([\w.]+)= +(.*)$", shown, re.MULTILINE))
        assert bool(fields) == (len(argv) > 1)
    assert fields["rate"] == "100  (100, 500)" and fields["epochs"] == "40  (1 to 1,000,000)"
    assert "dataset" in fields and "cosine" in fields["optimizer.schedule"]


def test_a_config_file_with_an_error_says_so(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("def get_config(arg=None):\n    return nonsense\n")
    with pytest.raises(UserError, match=r"broken.py: .*nonsense"):
        parse(f"--config={file}", "--workdir=x")


@pytest.mark.parametrize("name", ["etp", "mets", "simclr"])
def test_configs_for_mimic(name):
    config = parse(f"--config=configs/{name}.py:mimic", "--workdir=x").config
    assert (config.dataset, config.rate, config.batch_size) == ("mimic_iv_ecg", 100, 512)
    assert config.epochs == 50 and config.optimizer.schedule == "cosine"
    if name != "simclr":
        assert config.model.spare_patient and config.evaluate.protocols == ("zero_shot",)


@pytest.mark.parametrize("name", ["etp", "mets"])
@pytest.mark.parametrize("argument", ["", "paper", "modern", "demo"])
def test_every_config_loads(name, argument):
    config = parse(f"--config=configs/{name}.py:{argument}", "--workdir=x").config
    assert config.method == name


def test_the_papers_own_hyper_parameters():
    etp = parse("--config=configs/etp.py:paper", "--workdir=x").config
    o = etp.optimizer
    assert (o.name, o.learning_rate, o.weight_decay, o.schedule) == ("adam", 2e-3, 1e-5, "constant")
    assert (etp.epochs, etp.batch_size, etp.rate, etp.model.dim) == (50, 128, 500, 512)
    assert (etp.model.temperature, etp.model.learn_temperature) == (0.07, False)
    assert (etp.text.tower, etp.text.language) == ("clinicalbert", "original")
    assert not etp.augment and not etp.model.same_report and not etp.model.hidden
    assert not etp.model.soft_targets and not etp.average
    mets = parse("--config=configs/mets.py:paper", "--workdir=x").config
    o = mets.optimizer
    assert (o.name, o.learning_rate, o.weight_decay, o.schedule) == ("adam", 1e-3, 1e-3, "constant")
    assert (mets.epochs, mets.batch_size, mets.model.dim) == (50, 32, 128)
    assert mets.text.template == "The report of the ECG is that {text}"


def test_data_that_are_not_prepared_name_the_command(small, tmp_path):
    small.data_dir = str(tmp_path)
    with pytest.raises(UserError, match=r"python -m tfds_builders\.prepare simulated --rate 100"):
        open_experiment(small)


def test_an_empty_report_stops_the_run_when_asked(small):
    small.text.empty = "error"
    experiment = open_experiment(small)
    experiment.train.report[0] = " \n"
    with pytest.raises(UserError, match=r"1 records have an empty report .*text.empty=drop"):
        report_texts(small, experiment.train)


def test_a_config_without_the_reports_that_its_method_reads(small):
    del small.text
    with pytest.raises(UserError, match=r"etp learns from reports.*use configs/etp\.py"):
        open_experiment(small)


@pytest.mark.parametrize("field", ["text.shuffle", "model.soft_targets", "model.temperature"])
def test_a_field_that_the_method_would_not_read(field):
    with pytest.raises(UserError, match=f"no field '{field}' in configs/byol.py"):
        parse("--config=configs/byol.py", "--workdir=x", f"--config.{field}=1")


def test_a_number_that_is_none(small):
    small.model.temperature = float("nan")
    with pytest.raises(UserError, match=r"--config\.model\.temperature=nan: must be a finite"):
        open_experiment(small)


@pytest.mark.parametrize("name", ["os", "towers", "shared", "shared.towers", ""])
def test_a_method_that_is_not_there(small, name):
    small.method = name
    with pytest.raises(UserError, match=f"no method '{name}'"):
        open_experiment(small)


def test_the_programs_print_one_line_and_exit_with_2(tmp_path):
    commands = [
        [
            "ecg_jax.train",
            "--config=configs/etp.py:demo",
            f"--workdir={tmp_path}/run",
            "--config.x=1",
        ],
        ["ecg_jax.evaluate", f"--workdir={tmp_path}/run"],
    ]
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "run").exists()
