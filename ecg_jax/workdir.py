"""A run's folder: config.json says whose it is."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ecg_jax import config as config_lib
from ecg_jax.errors import UserError
from ecg_jax.experiment import Experiment, provenance

# what may differ when a run goes on: where things lie and how often they are reported
FREE = {"data_dir", "build", "stream", "log_every", "checkpoint_seconds", "steps_per_dispatch"}


def claim(folder: Path, experiment: Experiment) -> None:
    """Writes config.json, or checks that the one there is of this config and these data.

    Raises:
      UserError: the folder holds another run.
    """
    config = config_lib.to_json(experiment.config)
    splits = {s.split: s.fingerprint() for s in (experiment.train, experiment.validation)}
    path = folder / "config.json"
    if path.exists():
        _, saved = read(folder)
        ours, theirs = config_lib.flatten(config), config_lib.flatten(saved["config"])
        differ = [
            f"{k} is {theirs.get(k)!r} there and {ours.get(k)!r} here"
            for k in sorted(ours | theirs)
            if ours.get(k) != theirs.get(k) and k not in FREE
        ]
        differ += [f"the {s} records differ" for s in splits if saved["splits"].get(s) != splits[s]]
        if differ:
            raise UserError(
                f"{folder} holds another run: {'; '.join(differ[:4])}"
                f"{'; ...' if len(differ) > 4 else ''}: choose another --workdir"
            )
        return
    if (folder / "checkpoints").exists():
        raise UserError(f"{folder} has checkpoints but no config.json: choose another --workdir")
    folder.mkdir(parents=True, exist_ok=True)
    run = {"config": config, "splits": splits, **provenance(experiment)}
    write_json(path, run)


def read(folder: Path) -> tuple[ConfigDict, dict[str, Any]]:
    """A run's config, and all of its config.json.

    Raises:
      UserError: the folder holds no run.
    """
    path = folder / "config.json"
    try:
        saved = json.loads(path.read_text())
        return ConfigDict(saved["config"]), saved
    except FileNotFoundError:
        raise UserError(f"{folder} holds no run: it has no config.json") from None
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): restore it from a copy") from error


def write_json(path: Path, tree: Any) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(tree, indent=2) + "\n")
    partial.replace(path)
