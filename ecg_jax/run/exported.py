"""The arrays of a model that lies in a folder for others: `model.safetensors`, checked."""

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ecg_jax.errors import UserError

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_arrays(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Name -> array of a safetensors file.

    Raises:
      UserError: it cannot be read, or is not the one of that digest.
    """
    try:
        if sha256_of(path) != sha256:
            raise UserError(f"{path} is damaged: its sha256 is not that in {CONFIG}")
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}): export it again") from None


def check_shapes(path: Path, arrays: dict[str, Any], like: dict[str, Any]) -> None:
    """Raises a UserError unless the arrays are those of the tree `like`, no more and no less."""
    expected = {name: leaf.shape for name, leaf in flatten(like).items()}
    found = {name: array.shape for name, array in arrays.items()}
    if wrong := sorted(n for n in expected | found if expected.get(n) != found.get(n)):
        raise UserError(f"{path} does not fit {CONFIG}: {', '.join(wrong[:8])}")


def restore(folder: Path, sha256: str, like: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a folder as the tree `like`, and where its arrays lie.

    Raises:
      UserError: as `read_arrays` and `check_shapes`.
    """
    arrays = read_arrays(folder / WEIGHTS, sha256)
    check_shapes(folder / WEIGHTS, arrays, like)
    places = {name: leaf.sharding for name, leaf in flatten(like).items()}
    on_mesh = {name: jax.device_put(array, places[name]) for name, array in arrays.items()}
    tree = traverse_util.unflatten_dict(on_mesh, sep="/")
    return {name: tree.get(name, like[name]) for name in like}


def flatten(tree: dict[str, Any]) -> dict[str, Any]:
    """{"params": {"encoder": {...}}} -> {"params/encoder/...": array}"""
    return traverse_util.flatten_dict(tree, sep="/")
