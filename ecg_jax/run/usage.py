"""What `--help` says of a program that takes a config: its flags, the configs that there are and,
of one that is named, its fields with what they may be."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from absl import flags

from ecg_jax.run import fields

WIDTH = 40  # of a field's name


def text(
    usage: str, values: flags.FlagValues, folders: Iterable[Path], config: Mapping[str, Any]
) -> str:
    """Args:
    usage: what the program does.
    values: its flags.
    folders: where configs lie; those that are not there are passed over.
    config: fields of the config that was named, by dotted names; none without one.
    """
    found = sorted({file.stem for folder in folders for file in folder.glob("*.py")})
    names = ", ".join(name for name in found if name not in ("__init__", "common"))
    lines = [
        usage.rstrip(),
        "",
        *_flags(values),
        "",
        f"FILE: configs/NAME.py, or one of your own; NAME: {names}",
    ]
    lines += ["ARGS: demo, paper, rate=100|500, seed=N, text=minilm|FOLDER, as the config has them"]
    if not config:
        return "\n".join([*lines, "FIELD and VALUE: `--config FILE --help` lists them"])
    lines += ["", "FIELD=VALUE, as this config has it"]
    return "\n".join([*lines, *(_field(*item) for item in sorted(config.items()))])


def _flags(values: flags.FlagValues) -> list[str]:
    own = [values[name] for name in values if name != "help"]
    return [f"  --{flag.name:<16}{flag.help}" for flag in own]


def _field(name: str, value: Any) -> str:
    rule = fields.FIELDS.get(name)
    may = f"  ({', '.join(map(str, rule.values))})" if isinstance(rule, fields.Choice) else ""
    if isinstance(rule, fields.Number) and max(abs(rule.low), abs(rule.high)) < float("inf"):
        may = f"  ({rule.low:,.9g} to {rule.high:,.9g})"
    return f"  {name + '=':<{WIDTH}}{fields.shown(value)}{may}"
