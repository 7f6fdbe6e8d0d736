"""Prompts for zero-shot classification, read from `prompts.toml`."""

import functools
import tomllib
from collections.abc import Sequence
from pathlib import Path

from ecg_jax.errors import UserError

PROMPTS = Path(__file__).with_name("prompts.toml")
NAMESPACES = ("scp", "super", "sub", "cpsc", "aami", "mit_rhythm")
SETS = ("etp", "mets", "clinical")


def prompt_sets(classes: Sequence[str], namespace: str) -> dict[str, dict[str, list[str]]]:
    """Every prompt set for the classes of one task.

    Args:
      classes: class codes in the task's order, e.g. `["NORM", "MI"]`.
      namespace: where the codes are defined, one of `NAMESPACES`; the same code can stand for
        different classes (`AMI` is a subclass and an SCP statement).

    Returns:
      {set: {class: prompts}}, both in the order of `SETS` and `classes`. "etp" and "mets" are the
      published templates with one prompt per class; "clinical" is an ensemble of own wordings.

    Raises:
      UserError: an unknown namespace, or a class without prompts.
    """
    if namespace not in NAMESPACES:
        raise UserError(f"prompt namespace {namespace!r}: choose one of {', '.join(NAMESPACES)}")
    data = load_prompts()
    unknown = [code for code in classes if code not in data[namespace]]
    if unknown:
        raise UserError(
            f"no prompts for class {', '.join(unknown)} of {namespace!r}: "
            f"add [{namespace}.{unknown[0]}] to {PROMPTS}"
        )
    sets = {
        name: {code: [template.format(name=data[namespace][code]["name"])] for code in classes}
        for name, template in data["templates"].items()
    }
    sets["clinical"] = {code: list(data[namespace][code]["clinical"]) for code in classes}
    return {name: sets[name] for name in SETS}


@functools.cache
def load_prompts() -> dict[str, dict]:
    """The parsed `prompts.toml`: {"templates": {set: template}, namespace: {class: entry}}."""
    with PROMPTS.open("rb") as file:
        return tomllib.load(file)
