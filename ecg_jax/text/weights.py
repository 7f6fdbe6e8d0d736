"""Parameters of a BERT text model from a published file. Nothing is unpickled, nothing guessed."""

import hashlib
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization, traverse_util

from ecg_jax.errors import UserError
from ecg_jax.models.bert import Bert, BertConfig

FILES = ("flax_model.msgpack", "model.safetensors", "pytorch_model.bin")  # in order of preference

# What the pickle inside a PyTorch file of plain tensors names. Anything else could run code.
SAFE_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "BFloat16", "Long", "Int")),
}


def find_weights(folder: Path) -> Path:
    """The weights file of a model's folder: the first of `FILES`.

    Raises:
      UserError: there is none.
    """
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: no text weights; expected one of {', '.join(FILES)}")


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_parameters(path: Path, config: BertConfig) -> dict[str, Any]:
    """The `Bert(config)` parameters (float32, nested as the module's) that a file holds.

    Args:
      path: a Flax msgpack, safetensors or PyTorch file, told by its suffix. A leading `params` or
        `bert` is stripped, the pre-training heads (`cls`) and `position_ids` are left out. The
        pooler may be missing.
      config: the model's own.

    Raises:
      UserError: a file of another format, a pickle that asks for anything but tensors, or names
        and shapes that are not exactly the model's (all of them are listed).
    """
    readers = {".msgpack": _read_msgpack, ".safetensors": _read_safetensors, ".bin": _read_torch}
    leaves: dict[str, np.ndarray] = {}
    for name, array in readers[path.suffix](path):
        if name in leaves:
            raise UserError(f"{path}: two arrays are named {name}")
        try:
            leaves[name] = np.asarray(array, np.float32)
        except (TypeError, ValueError):
            raise UserError(f"{path}: {name} is not an array of numbers") from None
    expected = parameter_shapes(config)
    if not any(name.startswith("pooler/") for name in leaves):  # no pooling here reads it
        expected = {n: shape for n, shape in expected.items() if not n.startswith("pooler/")}
    _check_shapes(path, leaves, expected)
    return traverse_util.unflatten_dict(leaves, sep="/")


def parameter_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Name ("encoder/layer/0/...") -> shape of every parameter of `Bert(config)`."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    variables = jax.eval_shape(Bert(config).init, jax.random.key(0), tokens, tokens > -1)
    leaves: dict[str, Any] = traverse_util.flatten_dict(variables["params"], sep="/")
    return {name: leaf.shape for name, leaf in leaves.items()}


def _check_shapes(
    path: Path, leaves: dict[str, np.ndarray], expected: dict[str, tuple[int, ...]]
) -> None:
    missing = sorted(expected.keys() - leaves.keys())
    unexpected = sorted(leaves.keys() - expected.keys())
    misshaped = [
        f"{name} {leaves[name].shape} instead of {shape}"
        for name, shape in sorted(expected.items())
        if name in leaves and leaves[name].shape != shape
    ]
    problems = {"missing": missing, "unexpected": unexpected, "wrong shape": misshaped}
    if any(problems.values()):
        found = "; ".join(
            f"{what}: {', '.join(names)}" for what, names in problems.items() if names
        )
        raise UserError(f"{path} does not fit its config.json: {found}")
    if broken := [name for name, leaf in sorted(leaves.items()) if not np.isfinite(leaf).all()]:
        raise UserError(f"{path}: not finite: {', '.join(broken)}")


def _inner_name(parts: list[str]) -> list[str] | None:
    """Without the wrappers around the encoder; None for what the encoder does not have."""
    while parts and parts[0] in ("params", "bert"):
        parts = parts[1:]
    return None if not parts or parts[0] == "cls" or parts[-1] == "position_ids" else parts


def _read_msgpack(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        tree = serialization.msgpack_restore(path.read_bytes())
        leaves = traverse_util.flatten_dict(tree)
    except Exception as error:  # msgpack, struct and flax raise a dozen types on damaged bytes
        raise UserError(f"{path}: damaged, or not a Flax msgpack file ({error})") from None
    for parts, array in leaves.items():
        if inner := _inner_name(list(parts)):
            yield "/".join(inner), array


def _read_safetensors(path: Path) -> Iterator[tuple[str, Any]]:
    from safetensors import SafetensorError
    from safetensors.flax import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged, or not a safetensors file ({error})") from None
    yield from _from_torch_layout(tensors)


def _read_torch(path: Path) -> Iterator[tuple[str, Any]]:
    yield from _from_torch_layout(torch_tensors(path))


def torch_tensors(path: Path, within: str = "") -> dict[str, np.ndarray]:
    """Name -> float32 array of a PyTorch file's tensors, or of those that it holds under `within`.

    Raises:
      UserError: its pickle asks for anything but tensors, PyTorch is not installed, or the file is
        damaged.
    """
    scan_pickle(path)
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            f"{path}: reading it needs PyTorch: pip install 'ecg-jax[torch]', or convert it to "
            "model.safetensors"
        ) from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        loaded = loaded[within] if within else loaded
        return {name: tensor.detach().float().numpy() for name, tensor in loaded.items()}
    except Exception as error:  # torch raises whatever the damage leads to
        raise UserError(f"{path}: damaged, or not a PyTorch file ({error})") from None


def _from_torch_layout(tensors: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """PyTorch's names and kernel orientation to Flax's; TensorFlow's gamma and beta too."""
    for name, tensor in tensors.items():
        parts = _inner_name(name.split("."))
        if not parts:
            continue
        *parents, leaf = parts
        owner = parents[-1] if parents else ""
        if leaf in ("gamma", "beta"):
            leaf = {"gamma": "scale", "beta": "bias"}[leaf]
        elif leaf == "weight" and owner == "LayerNorm":
            leaf = "scale"
        elif leaf == "weight" and owner.endswith("_embeddings"):
            leaf = "embedding"
        elif leaf == "weight":
            leaf, tensor = "kernel", tensor.T
        yield "/".join([*parents, leaf]), tensor


def scan_pickle(path: Path) -> None:
    """Reads a PyTorch file's pickle opcode by opcode, without running any.

    Raises:
      UserError: it names a global outside `SAFE_GLOBALS`, or is no PyTorch file.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.endswith(".pkl")]
                for name in names:
                    with archive.open(name) as file:
                        _scan_stream(file, path)
            streams = len(names)
        else:
            # Before version 1.6: magic number, protocol, system, tensors and keys, each a pickle.
            streams = 5
            with path.open("rb") as file:
                for _ in range(streams):
                    _scan_stream(file, path)
    except (ValueError, zipfile.BadZipFile, UnicodeDecodeError, EOFError) as error:
        raise UserError(f"{path}: damaged, or not a PyTorch file ({error})") from None
    if not streams:
        raise UserError(f"{path}: not a PyTorch file (it holds no data.pkl)")


def _scan_stream(file: IO[bytes], path: Path) -> None:
    strings: list[str] = []
    for opcode, argument, _ in pickletools.genops(file):
        if isinstance(argument, str) and "UNICODE" in opcode.name:
            strings.append(argument)
        if opcode.name in ("GLOBAL", "INST") and argument in SAFE_GLOBALS:
            continue
        if opcode.name in ("GLOBAL", "INST"):
            asked = argument
        elif opcode.name == "STACK_GLOBAL":
            # What it names lies on the stack, where a scan cannot be sure of it: always refused.
            asked = " ".join(strings[-2:])
        elif opcode.name.startswith("EXT"):
            asked = f"extension {argument}"
        else:
            continue
        raise UserError(
            f"{path}: refused, its pickle asks for {'.'.join(str(asked).split())!r}, which is no "
            "part of a tensor; get the weights as model.safetensors or flax_model.msgpack"
        )
