"""Published weights as a folder that `load_exported` reads and `evaluate` judges.

    python -m ecg_jax.import_weights ecg_fm FILE --out FOLDER
    python -m ecg_jax.evaluate --workdir FOLDER --data_dir data --tasks super

`ecg_fm`: a checkpoint of ECG-FM (McKeen et al. 2024, arXiv 2408.05178), pre-trained or fine-tuned,
as published (.pt, which needs PyTorch; nothing but tensors is unpickled) or its tensors as
.safetensors. It reads 500 Hz, each lead normalised by itself, in segments of 5 s whose features are
averaged. Of a fine-tuned one the encoder is kept, and its classes' layer as head.safetensors.
"""

import argparse
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ecg_jax import Config, export
from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError, run_main
from ecg_jax.inference import exported
from ecg_jax.inference.card import card
from ecg_jax.methods import build
from ecg_jax.models import ecg_fm, wav2vec2
from ecg_jax.run.experiment import NO_TOWER, blank
from ecg_jax.run.exported import flatten
from ecg_jax.run.provenance import numerics, software
from ecg_jax.runtime import process, storage
from ecg_jax.text.weights import torch_tensors

SEEN = (
    "ECG-FM was pre-trained on MIMIC-IV-ECG and the Challenge 2021's records, which hold PTB-XL's, "
    "CPSC2018's and Georgia's: figures on those are of records that it has seen"
)
LICENSE = "MIT, (c) 2024 WangLab; the terms of MIMIC-IV-ECG apply to what is made of its records"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        prog="python -m ecg_jax.import_weights",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=("ecg_fm",))
    parser.add_argument("file", type=Path, help="the published file")
    parser.add_argument("--out", required=True, help="a folder that is not there yet")
    args = parser.parse_args()
    process.configure()
    import_ecg_fm(args.file, storage.path(args.out))
    print(f"written: {args.out}")


def import_ecg_fm(file: Path, out: Path) -> None:
    """Raises a UserError: `out` is not empty, or the file does not hold exactly such a model."""
    if storage.exists(out) and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder: choose another --out")
    tensors = read(file)
    size, name = size_of(file, tensors)
    params = ecg_fm.parameters(tensors, size, wav2vec2.TOKEN)
    head = params.pop("head", None)
    config = configured(name, "w2v_cmsc" if head is None else "cmsc")
    tree = {"params": params, "method": {"batch_stats": {"encoder": _noise()}}}
    _check(file, config, tree)
    arrays = {name: np.ascontiguousarray(x) for name, x in flatten(tree).items()}

    def described(files: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        ours = software() | {"device": "none", "splits": {}}
        saved = {"text_tower": NO_TOWER, "splits": {}, "leads": list(LEADS), **ours}
        description = exported.described(config, saved, 0) | files
        extra = {"splits": {}, "leads": list(LEADS), "imported": SEEN, "license": LICENSE}
        extra |= {"numerics": numerics(config, "cpu"), "source": file.name, **ours}
        text = card(description, arrays, [], None)
        note = f"\nConverted from {file.name}, trained by its authors. {SEEN}. {LICENSE}.\n"
        return description | extra, {exported.CARD: text + note}

    export.write(out, arrays, described)
    if head is not None:
        save_file({k: np.ascontiguousarray(v) for k, v in head.items()}, out / "head.safetensors")


def read(file: Path) -> dict[str, np.ndarray]:
    """Name -> float array of a published file.

    Raises:
      UserError: no such file, another format, a pickle that asks for more than tensors, or PyTorch
        is not installed.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file}: damaged, or not a safetensors file ({error})") from None
    return torch_tensors(file, "model")


def size_of(file: Path, tensors: Mapping[str, np.ndarray]) -> tuple[wav2vec2.Size, str]:
    """Which of wav2vec2's sizes the tensors are of, and its name.

    Raises:
      UserError: none.
    """
    projections = [n for n in tensors if n.endswith("post_extract_proj.weight")]
    width = tensors[projections[0]].shape[0] if projections else 0
    layers = len({n for n in tensors if n.endswith(".fc1.weight")})
    for name, size in wav2vec2.SIZES.items():
        if (size.width, size.layers) == (width, layers):
            return size, name
    known = ", ".join(f"{n} ({s.layers} of {s.width})" for n, s in wav2vec2.SIZES.items())
    raise UserError(
        f"{file}: {layers} layers of {width} units are no size of ECG-FM's network: there are "
        f"{known}"
    )


def configured(size: str, kind: str) -> Config:
    """The config that the weights are of."""
    config = importlib.import_module("configs.w2v_cmsc_rlm").get_config("code,rate=500")
    config.model.update(size=size, kind=kind, token=wav2vec2.TOKEN)
    config.normalize = "lead"
    config.evaluate.protocols = ("linear_probe",)
    return config


def _noise() -> dict[str, Any]:
    return {"noise": {"noise": np.zeros(2, np.uint32)}}


def _check(file: Path, config: Config, tree: dict[str, Any]) -> None:
    """Raises a UserError unless the tree is what the config's method has."""
    view = blank(round(config.seconds * config.rate), 0)
    params, state = jax.eval_shape(build(config, "cpu").init, jax.random.key(0), view)
    expected = {n: x.shape for n, x in flatten({"params": params, "method": state}).items()}
    found = {n: x.shape for n, x in flatten(tree).items()}
    if wrong := sorted(n for n in expected | found if expected.get(n) != found.get(n)):
        raise UserError(f"{file}: its parameters are not those of the network: {wrong[0]}")


if __name__ == "__main__":
    run_main(main)
