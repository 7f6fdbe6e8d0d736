"""Reads the checkpoints that earlier versions wrote: in a format of their own (1), or, before that,
by orbax's manager of checkpoints."""

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ecg_jax.errors import UserError
from ecg_jax.runtime import arrays, hosts, storage

Tree = Any
MARK = "_CHECKPOINT_METADATA"  # in a folder that orbax's manager has finished


def read_format_1(folder: Path, index: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    """Arrays by name, from `<process>.bin` files: parts one after the other, whose places in array
    and file, and sha256, the index has.

    Raises:
      UserError: a part is missing, cut short or changed, or the index says of it what cannot be.
    """
    try:
        parts = {name: index["arrays"][name]["parts"] for name in like}
        return {name: _joined(folder, name, parts[name], leaf) for name, leaf in like.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError("its index does not say where the parts lie") from error


def _joined(folder: Path, name: str, parts: list[dict[str, Any]], leaf: Any) -> jax.Array:
    out, filled = np.empty(leaf.shape, leaf.dtype), np.zeros(leaf.shape, bool)
    for part in parts:
        spans = zip(part["start"], part["shape"], strict=True)
        where = tuple(slice(start, start + size) for start, size in spans)
        out[where] = _part(folder, part, out.dtype)
        filled[where] = True
    if not filled.all():
        raise UserError(f"parts of {name} are missing")
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        return jax.numpy.asarray(out)
    return jax.make_array_from_callback(out.shape, sharding, out.__getitem__)


def _part(folder: Path, part: dict[str, Any], dtype: np.dtype) -> np.ndarray:
    path, size = folder / part["file"], math.prod(part["shape"]) * dtype.itemsize
    if path.parent != folder or size < 0:
        raise UserError(f"{part['file']!r} is no file of this checkpoint")
    try:
        with storage.reached(path), path.open("rb") as file:
            file.seek(part["offset"])
            content = file.read(size)
    except OSError as error:
        raise UserError(f"{path.name}: {error.strerror or error}") from error
    if len(content) != size or hashlib.sha256(content).hexdigest() != part["sha256"]:
        raise UserError(f"{path.name} is cut short, or differs from its sha256")
    return np.frombuffer(content, dtype).reshape(part["shape"])


def read_orbax(folder: Path, like: Tree) -> tuple[Tree, dict[str, Any]]:
    """State and notes of a step's folder; all processes call it.

    Raises:
      UserError: the folder cannot be read, or its arrays are not what their sha256 say.
    """
    state, notes = hosts.together(lambda: _read_orbax(folder, like))
    saved, found = notes.pop("sha256"), arrays.digests(state)
    if damaged := [name for name, digest in found.items() if saved.get(name) != digest]:
        raise UserError(f"{len(damaged)} arrays differ from their sha256")
    return state, notes


def _read_orbax(folder: Path, like: Tree) -> tuple[Tree, dict[str, Any]]:
    try:
        notes = json.loads((folder / "notes" / "metadata").read_bytes())
        _ = notes["sha256"].items()
        return arrays.read(folder / "state", like), notes
    except Exception as error:  # whatever a damaged file makes orbax raise
        text = " ".join(str(error).split()) or type(error).__name__
        raise UserError(re.split(r" \[|\(|: \{", text)[0][:160]) from error
