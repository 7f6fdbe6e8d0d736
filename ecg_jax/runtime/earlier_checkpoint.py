"""Reads the checkpoints that runs wrote before they had a format of their own: the only file that
imports orbax."""

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ecg_jax.errors import UserError
from ecg_jax.runtime import hosts

Tree = Any
MARK = "_CHECKPOINT_METADATA"  # in a folder that orbax has finished


def read(
    folder: Path, like: Tree, digests: Callable[[Tree], dict[str, str]]
) -> tuple[Tree, dict[str, Any]]:
    """State and notes of a step's folder; all processes call it. `digests` are a tree's sha256.

    Raises:
      UserError: the folder cannot be read, or its arrays are not what their sha256 say.
    """
    state, notes = hosts.together(lambda: _read(folder, like))
    found, saved = digests(state), notes.pop("sha256")

    def compare() -> None:
        damaged = [name for name, digest in found.items() if saved.get(name) != digest]
        if damaged:
            raise UserError(f"{len(damaged)} arrays differ from their sha256")

    hosts.together(compare)
    return state, notes


def _read(folder: Path, like: Tree) -> tuple[Tree, dict[str, Any]]:
    logging.getLogger("absl").addFilter(_from_orbax)
    import orbax.checkpoint as ocp

    try:
        with ocp.CheckpointManager(folder.parent.absolute()) as manager:
            restored = manager.restore(
                int(folder.name),
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(like), notes=ocp.args.JsonRestore()
                ),
            )
    except Exception as error:  # whatever a damaged file makes orbax raise
        text = " ".join(str(error).split()) or type(error).__name__
        raise UserError(re.split(r" \[|\(|: \{", text)[0][:160]) from error
    return restored["state"], restored["notes"]


def _from_orbax(record: logging.LogRecord) -> bool:
    """orbax reports every phase by absl's logger; what others say there is kept."""
    return "orbax" not in record.pathname
