"""The arrays of a model that lies in a folder for others: `model.safetensors`, checked."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jax.core import Tracer
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ecg_jax import Config
from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError
from tfds_builders.checks import MIN_AMPLITUDE_UV

WEIGHTS, CONFIG = "model.safetensors", "config.json"
SEAL = "sha256"  # config.json's, of the rest of it


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


def sealed(description: dict[str, Any]) -> dict[str, Any]:
    """The same with `sha256`, of all that it says."""
    said = {name: value for name, value in description.items() if name != SEAL}
    text = json.dumps(said, sort_keys=True, ensure_ascii=False)
    return {**said, SEAL: hashlib.sha256(text.encode()).hexdigest()}


def check_seal(folder: Path, description: dict[str, Any]) -> None:
    """Raises a UserError if config.json is not what was written. Format 1 had no digest of it."""
    if description["format"] > 1 and description != sealed(description):
        raise UserError(
            f"{folder / CONFIG} is not as it was exported (its sha256 differs): export it again"
        )


def check_agreement(folder: Path, description: dict[str, Any], config: Config) -> None:
    """Raises a UserError where config.json says one thing in two ways."""
    given = description["input"]
    twice = {
        "method": (description["method"], config.method),
        "input.leads": (given["leads"], list(LEADS)),
        "input.rate_hz": (given["rate_hz"], config.rate),
        "input.seconds": (given["seconds"], config.seconds),
        "input.units": (given["units"], "uV"),
        "input.normalize": (given["normalize"], config.normalize),
    }
    twice |= {
        f"model.{name}": (value, config.model.get(name))
        for name, value in description["model"].items()
        if name != "convolution"  # those of earlier versions are read as "auto"
    }
    for name, (one, other) in twice.items():
        if one != (list(other) if isinstance(other, tuple) else other):
            raise UserError(
                f"{folder / CONFIG} contradicts itself: {name} is {one!r}, by its config "
                f"{other!r}: export it again"
            )


def check_input(ecg: Any, lead_mask: Any, T: int) -> None:
    """Raises a UserError for what the encoder was not trained on, and would take for microvolts:
    unless ecg is int16 [B, T, 12] and lead_mask bool [B, 12] says which leads there are, and each
    record has one. Of arrays that are being traced only the form is known."""
    traced = any(isinstance(array, Tracer) for array in (ecg, lead_mask))
    if not traced:
        ecg, lead_mask = np.asarray(ecg), np.asarray(lead_mask)
    wanted = f"int16 microvolts [B, {T}, {len(LEADS)}]"
    if ecg.dtype != np.int16 or ecg.ndim != 3 or ecg.shape[1:] != (T, len(LEADS)):
        raise UserError(
            f"encode takes {wanted}, not {ecg.dtype} {list(ecg.shape)} (ecg_jax.read and "
            "ecg_jax.from_array bring recordings into this form)"
        )
    if lead_mask.dtype != np.bool_ or lead_mask.shape != (len(ecg), len(LEADS)):
        raise UserError(
            f"encode takes a lead mask, bool [{len(ecg)}, {len(LEADS)}], not {lead_mask.dtype} "
            f"{list(lead_mask.shape)}"
        )
    if not traced:
        _check_records(ecg, lead_mask)


def _check_records(ecg: np.ndarray, lead_mask: np.ndarray) -> None:
    if (bare := ~lead_mask.any(axis=1)).any():
        raise UserError(f"record {int(bare.argmax())} of {len(ecg)} has no lead")
    if (hidden := ecg.any(axis=1) & ~lead_mask).any():
        row, lead = np.argwhere(hidden)[0].tolist()
        raise UserError(f"record {row}: {LEADS[lead]} has samples, and is not in the lead mask")
    span = (ecg.max(axis=1).astype(np.int32) - ecg.min(axis=1)).max(axis=1)
    if (flat := span < MIN_AMPLITUDE_UV).any():
        raise UserError(
            f"record {int(flat.argmax())}: spans {span[flat][0]} uV, no ECG is below "
            f"{MIN_AMPLITUDE_UV} uV: are these millivolts?"
        )
