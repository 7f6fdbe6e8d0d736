"""A program's command line: `--config FILE[:ARGS] --workdir DIR [--config.FIELD=VALUE]`, and the
flags of `hosts` where there are several processes."""

import copy
import dataclasses
import difflib
import functools
import importlib
import importlib.util
import json
import re
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from ecg_jax import Config
from ecg_jax.data import augment
from ecg_jax.errors import UserError
from ecg_jax.run import fields
from ecg_jax.run import usage as usage_lib
from ecg_jax.runtime import hosts, storage

PACKAGE = "configs"
SHIPPED = Path(__file__).parents[1] / "configs"  # in an installed package; a clone has none there


@dataclasses.dataclass(frozen=True)
class CommandLine:
    config: Config
    workdir: Path
    address: hosts.Address
    profile: int = 0


def parse(argv: Sequence[str], usage: str) -> CommandLine:
    """Reads the flags; `argv[0]` is the program's name.

    Raises:
      UserError: no such config file, argument or field, or a value of the wrong type.
    """
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "the run's folder", flag_values=values)
    text = "updates of which a trace is written to the run's folder"
    flags.DEFINE_integer("profile", 0, text, lower_bound=0, flag_values=values)
    for field in hosts.FLAGS:
        define: Any = (
            flags.DEFINE_string if isinstance(field.default, str) else flags.DEFINE_integer
        )
        define(field.name, field.default, field.metadata["help"], flag_values=values)
    config = parse_config(argv, usage, values)
    if not values.workdir:
        raise UserError("--workdir DIR is missing: the folder for checkpoints and results")
    address = hosts.Address(**{field.name: getattr(values, field.name) for field in hosts.FLAGS})
    return CommandLine(config, storage.path(values.workdir), address, values.profile)


def parse_config(argv: Sequence[str], usage: str, values: flags.FlagValues) -> Config:
    """Reads the flags that `values` defines, and `--config` with its fields, which it returns.

    Raises:
      UserError: as `parse`.
    """
    argv = [fields.as_written(argument) for argument in argv]
    flags.DEFINE_boolean("help", False, "show this text", flag_values=values, short_name="h")
    given = next((i for i, a in enumerate(argv) if re.match("--?config(=|$)", a)), None)
    file = "" if given is None else _value(argv, given)
    if any(a in ("--help", "-h", "-help") for a in argv[1:]):
        folders = (Path(PACKAGE), SHIPPED)
        print(usage_lib.text(usage, values, folders, _config(located(file)) if file else {}))
        raise SystemExit(0)
    if given is None or not file:
        raise UserError("--config FILE[:ARGS] is missing, such as --config configs/etp.py:demo")
    words = 1 if "=" in argv[given] else 2
    found = located(file)
    argv = [*argv[:given], f"--config={found}", *argv[given + words :]]
    config_flags.DEFINE_config_file(
        "config", None, "FILE[:ARGS]", flag_values=values, sys_argv=argv
    )
    try:
        _own_package(Path(found.split(":")[0]))
        rest = values(argv)[1:]
        config = values.config
    except Exception as error:  # a config file is code and may raise anything
        raise UserError(_explain(file, argv, error)) from error
    if rest:
        raise UserError(f"unknown argument {rest[0]!r}; {usage.strip().splitlines()[0]}")
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"{file}: its get_config returns {type(config).__name__}, not an ml_collections "
            "ConfigDict"
        )
    for name, value in flatten(config.to_dict()).items():
        if (items := fields.separated(name, value)) != value:
            with config.ignore_type():
                config.update_from_flattened_dict({name: items})
    return config


def located(file: str) -> str:
    """FILE[:ARGS] as given, or the file of that name that came with the installed package.

    Raises:
      UserError: there is neither.
    """
    name, colon, arguments = file.partition(":")
    know_configs()
    there = storage.expanded(name)  # `--config=~/FILE`, which a shell leaves as it is
    if there.is_file():
        return f"{there}{colon}{arguments}"
    shipped = (SHIPPED / Path(name).name).with_suffix(".py")
    if not shipped.is_file():
        raise UserError(f"no such config file: {name}")
    return f"{shipped}{colon}{arguments}"


def know_configs() -> None:
    """Where there is no clone, `from configs import common` finds the installed package's files:
    they begin so, and so may a user's own, wherever they lie."""
    if PACKAGE in sys.modules or not SHIPPED.is_dir():
        return
    if importlib.util.find_spec(PACKAGE) is None:
        sys.modules[PACKAGE] = importlib.import_module("ecg_jax.configs")


def _own_package(file: Path) -> None:
    """What a file in a folder `configs` imports from there is from its own folder, whichever
    `configs` the current one has."""
    folder = str(file.resolve().parent)
    there = list(getattr(sys.modules.get(PACKAGE), "__path__", ()))
    if file.resolve().parent.name != PACKAGE or there[:1] == [folder]:
        return
    for name in [name for name in sys.modules if name.startswith(f"{PACKAGE}.")]:
        if Path(getattr(sys.modules[name], "__file__", None) or folder).parent != Path(folder):
            del sys.modules[name]
    package = types.ModuleType(PACKAGE)
    shipped = [str(SHIPPED)] if SHIPPED.is_dir() else []
    package.__path__ = list(dict.fromkeys([folder, *there, *shipped]))
    sys.modules[PACKAGE] = package


def _value(argv: Sequence[str], i: int) -> str:
    _, equals, value = argv[i].partition("=")
    return value if equals else next(iter(argv[i + 1 : i + 2]), "")


def _explain(file: str, argv: Sequence[str], error: Exception) -> str:
    """What was wrong with the flags, in one line."""
    given = [m[1] for a in argv if (m := re.match(r"--?config\.([\w.]+)", a))]
    known = sorted(_config(located(file)))
    for field in given:
        if known and field not in known:
            near = difflib.get_close_matches(field, known, n=1)
            hint = f": did you mean {near[0]}?" if near else f": there are {', '.join(known)}"
            return f"no field {field!r} in {file}{hint}"
    return f"{file}: {str(error).strip().splitlines()[-1] if str(error) else error!r}"


def _config(file: str) -> dict[str, Any]:
    """A config's fields by dotted names, or none if the file itself is at fault."""
    values = flags.FlagValues()
    argv = ["program", f"--config={file}"]
    config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=argv)
    try:
        values(argv)
    except Exception:  # a config file is code and may raise anything
        return {}
    return flatten(values.config.to_dict())


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}"""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def check(config: Config) -> None:
    """Raises a UserError for a field whose value no run can have: see `fields`."""
    fields.check(flatten(config.to_dict()))
    o = config.optimizer
    if o.warmup_epochs > config.epochs:
        raise UserError(
            f"--config.optimizer.warmup_epochs={o.warmup_epochs}: the run has {config.epochs} "
            "epochs, and its learning rate would never be reached"
        )
    if o.name == "adamw" and o.learning_rate * o.weight_decay >= 1:
        raise UserError(
            f"--config.optimizer.weight_decay={o.weight_decay}: times the learning rate of "
            f"{o.learning_rate:g} it takes away all of a parameter in one update"
        )
    for protocol in ("finetune", "supervised"):
        options = config.evaluate[protocol]
        if options.min_updates > options.max_updates:
            raise UserError(
                f"--config.evaluate.{protocol}.min_updates={options.min_updates}: more than the "
                f"{options.max_updates} of max_updates"
            )
        try:
            augment.compose(options.augment, config.rate)
            augment.length(options.augment, config.seconds)
        except UserError as error:
            raise UserError(f"--config.evaluate.{protocol}.augment: {error}") from error


def to_json(config: Config) -> dict[str, Any]:
    """The config as JSON holds it (tuples become lists)."""
    return json.loads(json.dumps(config.to_dict()))


_LABELLED = {
    "head_rate": 1.0,
    "weight_decay": 0.05,
    "clip": 1.0,
    "batch_size": 32,
    "epochs": 15,
    "max_updates": 10_000,
    "augment": (
        {"name": "crop"},
        {"name": "scale"},
        {"name": "jitter", "sd": 0.05},
        {"name": "wander"},
        {"name": "time_mask", "fraction": 0.3},
        {"name": "lead_mask", "probability": 0.2},
    ),
}
# Fields that the configs of earlier runs lack, with what was so before there was a choice, or is
# so by default.
ADDED = {
    "init": "",
    "extend": "",
    "stream": False,
    "accumulate": 1,
    "average": 0.0,
    "evaluate.protocols": ("zero_shot", "linear_probe"),
    "evaluate.rules": ("corrected", "paper"),
    "evaluate.finetune_rules": ("corrected", "paper"),
    "evaluate.l2_normalize": False,
    "evaluate.pooling": "mean",
    "evaluate.controls": ("random",),
    "evaluate.fractions": (1.0,),
    "evaluate.conditions": (),
    "evaluate.retrieval": True,
    "evaluate.prompts": "",
    "evaluate.bank": "",
    "evaluate.null_draws": 0,
    "evaluate.knn_every": 0,
    "evaluate.neighbours": 2048,
    "augment_second": (),
    "model.encoder": "resnet1d",
    "model.size": "small",
    "model.convolution": "plain",
    "model.remat": False,
    "parallel.loss": "plain",
    "parallel.batch_norm": "global",
    "parallel.shard_optimizer": False,
    "evaluate.finetune_fractions": (0.05,),
    "evaluate.finetune_leads": (12,),
    "evaluate.finetune": {
        "head": "probe",
        "learning_rates": (3e-4,),
        "min_updates": 150,
        **_LABELLED,
    },
    "evaluate.supervised": {
        "head": "prevalence",
        "learning_rates": (1e-3,),
        "min_updates": 300,
        **_LABELLED,
    },
    "evaluate.delineate": {
        "width": 32,
        "updates": 1000,
        "looks": 10,
        "batch_size": 16,
        "learning_rate": 1e-3,
        "encoder_rate": 1.0,
        "weight_decay": 0.05,
    },
    "evaluate.finetune.augment": _LABELLED["augment"],
    "evaluate.supervised.augment": _LABELLED["augment"],
}
ADDED_WITH_TEXT = {
    "text.shuffle": False,
    "text.sentences": 0.0,
    "model.spare_patient": False,
    "model.soft_targets": 0.0,
    "model.invariance": 0.0,
    "model.loss": "info_nce",
    "model.bias": -10.0,
}


# Forms of a convolution that earlier versions had, with the figures of the others.
GONE = ("planar", "shifted", "folded")


def from_json(tree: dict[str, Any]) -> Config:
    """The config that `to_json` wrote, of this version or, if its method reads reports, of an
    earlier one."""
    tree = copy.deepcopy(tree)
    own = {"evaluate.paper": "mets" if tree.get("method") == "mets" else "etp"}
    for name, value in (ADDED | own | (ADDED_WITH_TEXT if "text" in tree else {})).items():
        *groups, field = name.split(".")
        place = functools.reduce(lambda tree, group: tree.setdefault(group, {}), groups, tree)
        place.setdefault(field, copy.deepcopy(value))
    if tree["model"].get("convolution") in GONE:
        tree["model"]["convolution"] = "auto"
    return ConfigDict(tree)
