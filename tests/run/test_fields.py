"""Every field of every config has a rule, and values beyond it are refused."""

import importlib
import math
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from ecg_jax.errors import UserError
from ecg_jax.run import config as config_lib
from ecg_jax.run import fields

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem != "common")
WITH_REPORTS = ("etp", "mets")


def made(name, argument=None):
    return importlib.import_module(f"configs.{name}").get_config(argument)


def beyond(rule):
    """Values that a rule refuses, and some that it allows."""
    if isinstance(rule, fields.Number):
        step = 1 if rule.whole else 1e-6
        yield from (None, True, "1", (1,), [1], {}, math.nan, math.inf, -math.inf)
        if rule.whole:
            yield from (1.5, 2.0)
        if rule.low > -math.inf:
            yield rule.low if rule.above else rule.low - step
        if rule.high < math.inf:
            yield rule.high if rule.below else rule.high + step
    elif isinstance(rule, fields.Choice):
        yield from (None, "", "no such", 17, -1, 1.5)
    elif isinstance(rule, fields.Flag):
        yield from (None, "True", 1, 0)
    elif isinstance(rule, fields.Text):
        yield from (None, 1, ("a",))
    elif isinstance(rule, fields.Listed):
        yield from (None, "super", 1, {"name": "scale"}, (None,), ((),), (True,))
        if not rule.empty:
            yield ()
        if isinstance(rule.item, fields.Number):
            yield from (("10%",), (0,), (-1.0,), (math.nan,))


def cases():
    """(config, field, its rule) of every field, each once."""
    seen = set()
    for name in ("etp", *NAMES):
        for field in config_lib.flatten(made(name).to_dict()):
            if field not in seen:
                seen.add(field)
                yield name, field


def test_no_field_is_missing_from_the_table():
    found = {field for _, field in cases()}
    assert found == fields.FIELDS.keys()


@pytest.mark.parametrize("name", NAMES)
def test_every_config_is_within_it(name):
    for argument in (None, "demo", "paper") if name in WITH_REPORTS else (None, "demo"):
        config = made(name, argument)
        config_lib.check(config)
        assert fields.COMMON.keys() <= config_lib.flatten(config.to_dict()).keys()


def test_values_beyond_every_range():
    """Of all fields in one test: each is a moment."""
    tried = 0
    for name, field in cases():
        values = config_lib.flatten(made(name).to_dict())
        for value in beyond(fields.FIELDS[field]):
            with pytest.raises(UserError, match=rf"^--config\.{field}=") as error:
                fields.check(values | {field: value})
            assert "\n" not in str(error.value)
            tried += 1
    assert tried > 8 * len(fields.FIELDS)


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("optimizer.clip", -1.0, "must not be negative"),
        ("optimizer.b1", 1.5, r"must be in \[0, 1\)"),
        ("optimizer.b2", 1.0, r"must be in \[0, 1\)"),
        ("optimizer.weight_decay", 600.0, "takes away all of a parameter"),
        ("optimizer.warmup_epochs", 100, "the run has 7 epochs"),
        ("optimizer.warmup_epochs", -1, "must not be negative"),
        ("seed", 2**32, "must be at most 2,147,483,647"),
        ("seconds", 0.001, "must be at least 1"),
        ("model.temperature", 0.0, "must be above zero"),
    ],
)
def test_what_is_said(field, value, why):
    config = made("etp", "demo")
    with config.ignore_type():
        config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=why):
        config_lib.check(config)


@pytest.mark.parametrize("field", sorted(fields.COMMON))
def test_a_config_that_lacks_a_field(field):
    values = config_lib.flatten(made("etp").to_dict())
    del values[field]
    with pytest.raises(UserError, match=rf"has no field {field}: begin it with configs/common"):
        fields.check(values)


def parsed(*options, file="configs/simclr.py:demo"):
    argv = ["train", f"--config={file}", "--workdir=x", *options]
    return config_lib.parse(argv, "usage").config


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("evaluate.tasks=super,findings", ("super", "findings")),
        ("evaluate.tasks=super", ("super",)),
        ("evaluate.tasks=('super','findings')", ("super", "findings")),
        ("evaluate.fractions=0.01,0.1,1", (0.01, 0.1, 1)),
        ("evaluate.fractions='0.1'", (0.1,)),
        ("evaluate.fractions=0.1", (0.1,)),
        ("evaluate.conditions=6 leads, all", ("6 leads", "all")),
        ("evaluate.finetune.learning_rates=1e-3,1e-4", (1e-3, 1e-4)),
        ("augment=({'name': 'scale'},)", ({"name": "scale"},)),
    ],
)
def test_lists_on_the_command_line(option, value):
    config = parsed(f"--config.{option}")
    config_lib.check(config)
    assert config_lib.flatten(config.to_dict())[option.partition("=")[0]] == value


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("evaluate.fractions=10%", r"fractions=\('10%',\): '10%' must be a number: shares are"),
        ("evaluate.tasks=None", r"tasks=\(None,\): None must be a text: write names"),
        ("evaluate.tasks=1", "must be a text: write names with commas"),
        ("augment={'name':'scale'}", r"no augmentation with a name: write \(\{'name'"),
        ("augment=scale", "no augmentation with a name"),
    ],
)
def test_lists_that_are_none(option, why):
    with pytest.raises(UserError, match=why):
        config_lib.check(parsed(f"--config.{option}"))


def test_a_config_file_of_another_form(tmp_path):
    file = tmp_path / "mine.py"
    for body in ("{'seed': 1}", "None", "'text'"):
        file.write_text(f"def get_config(arg=None):\n    return {body}\n", encoding="utf-8")
        with pytest.raises(UserError, match=r"mine\.py: its get_config returns"):
            parsed(file=str(file))
    file.write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"mine\.py: .*get_config"):
        parsed(file=str(file))
    with pytest.raises(UserError, match="has no field"):
        config_lib.check(ConfigDict({"seed": 1}))
