"""Checkpoints: the only file that imports orbax.

A checkpoint is the training state with its shardings, and a small JSON beside it that holds a
sha256 of every array: a checkpoint that was cut short or changed on disk is known for what it is.
"""

import hashlib
import logging
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ecg_jax.errors import UserError
from ecg_jax.runtime import hosts

Tree = Any

logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax reports every phase of every save


class Checkpoints:
    """The checkpoints of one folder; saves run beside the training."""

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = folder.absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=True, create=False
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, step: int, state: Tree, notes: dict[str, Any]) -> None:
        """Starts saving `state` under `step`; one that is there already is replaced.

        Saves of this step and of later ones, left by a run that went on from a damaged checkpoint,
        are removed first: orbax would drop a save that is not the newest.

        Raises:
          UserError: this save, or the one before it, could not be written.
        """
        self.wait()
        need = int(1.1 * sum(leaf.nbytes for leaf in jax.tree.leaves(state))) + 2**20
        hosts.together(lambda: self._check_room(need))
        try:
            for later in [s for s in self._manager.all_steps() if s >= step]:
                self._manager.delete(later)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    notes=ocp.args.JsonSave({**notes, "sha256": digests(state)}),
                ),
            )
        except (OSError, ValueError) as error:
            raise self._failed(error) from error

    def _check_room(self, need: int) -> None:
        if shutil.disk_usage(self.folder).free < need:
            raise UserError(
                f"no room for a checkpoint in {self.folder}: {need / 1e6:.1f} MB are needed: make "
                "room and run the same command again"
            )

    def restore(self, like: Tree) -> tuple[int, Tree, dict[str, Any]] | None:
        """The newest checkpoint that is whole: (step, state, notes), or None if there is none.

        A damaged one is skipped with a warning for the one before it.

        Args:
          like: a tree of arrays or `jax.ShapeDtypeStruct` with the shardings wanted.

        Raises:
          UserError: there are checkpoints, and none of them is whole.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                state, notes = hosts.together(lambda step=step: self._read(step, like))
                found = digests(state)
                hosts.together(lambda found=found, notes=notes: _compare(found, notes["sha256"]))
            except UserError as error:
                warnings.warn(
                    f"checkpoint {self.folder / str(step)} is damaged ({error}): skipped",
                    stacklevel=2,
                )
                continue
            return step, state, notes
        if steps:
            raise UserError(f"no checkpoint in {self.folder} is whole: start in a new workdir")
        return None

    def _read(self, step: int, like: Tree) -> tuple[Tree, dict[str, Any]]:
        try:
            restored = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(like), notes=ocp.args.JsonRestore()
                ),
            )
        except Exception as error:  # whatever a damaged file makes orbax raise
            raise UserError(_reason(error)) from error
        return restored["state"], restored["notes"]

    def wait(self) -> None:
        """Until what was saved is on disk.

        Raises:
          UserError: it could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Waits for what was saved. Raises as `wait` does."""
        self.wait()
        self._manager.close()

    def _failed(self, error: Exception) -> UserError:
        for partial in self.folder.glob("*.orbax-checkpoint-tmp"):
            shutil.rmtree(partial, ignore_errors=True)
        return UserError(
            f"could not write a checkpoint in {self.folder}: {_reason(error)}: make room and run "
            "the same command again"
        )


def _reason(error: Exception) -> str:
    """An error's first words; tensorstore's go on for pages."""
    text = " ".join(str(error).split()) or type(error).__name__
    full = re.search(r"no space left|file too large|quota exceeded", text, re.IGNORECASE)
    return full[0] if full else re.split(r" \[|\(|: \{", text)[0][:160]


def _compare(found: dict[str, str], saved: dict[str, str]) -> None:
    damaged = [path for path, digest in found.items() if saved.get(path) != digest]
    if damaged:
        raise UserError(f"{len(damaged)} arrays differ from their sha256")


def digests(tree: Tree) -> dict[str, str]:
    """sha256 of every array of a tree, by its path; all processes call it with theirs."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        data = np.ascontiguousarray(hosts.whole(leaf))
        found[jax.tree_util.keystr(path)] = hashlib.sha256(data.tobytes()).hexdigest()
    return found
