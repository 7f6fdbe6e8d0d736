"""The published tensors of wav2vec 2.0 for ECGs (ECG-FM, McKeen et al. 2024, arXiv 2408.05178), by
name, as our parameters.

215 tensors of a pre-trained model; 209 of a classifier, whose names begin with `encoder.` and which
has no quantizer. The weight norm of the positional convolution has two pairs of names, by version.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from ecg_jax.errors import UserError
from ecg_jax.models.quantizer import CODES, GROUPS, WIDTH
from ecg_jax.models.wav2vec2 import GROUPS as CONVOLUTION_GROUPS
from ecg_jax.models.wav2vec2 import TAPS, Size

NORM_NAMES = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)
LEADS = 12

Tensors = Mapping[str, np.ndarray]


def parameters(tensors: Tensors, size: Size, token: int = 256, blocks: int = 4) -> dict[str, Any]:
    """The parameters of `models.masked.Masked`, or of a classifier: {"encoder": ..., "head":
    {"kernel", "bias"}}.

    Raises:
      UserError: a tensor that is missing, unknown or of another shape.
    """
    classifier = any(name.startswith("encoder.feature_extractor.") for name in tensors)
    prefix = "encoder." if classifier else ""
    table = {f"{prefix}{name}": row for name, row in encoder(size, token, blocks).items()}
    table |= _classes(tensors, size) if classifier else pretraining(size, token)
    position = f"{prefix}conv_pos.pos_conv.0."
    old, new = ((position + g, position + v) for g, v in NORM_NAMES)
    if new[0] in tensors:
        table |= dict(zip(new, (table.pop(name) for name in old), strict=True))
    missing, extra = sorted(table.keys() - tensors.keys()), sorted(tensors.keys() - table.keys())
    if missing or extra:
        first = f"it lacks {missing[0]}" if missing else f"it has {extra[0]}"
        raise UserError(
            f"not the tensors of this model: {first} ({len(missing)} are missing, {len(extra)} are "
            f"unknown, of {len(table)})"
        )
    flat = {}
    for name, (path, shape, turn) in table.items():
        array = np.asarray(tensors[name], np.float32)
        if array.shape != shape:
            raise UserError(f"{name} has the shape {array.shape}, and this model has {shape}")
        flat[path] = array.transpose(turn) if turn else array
    params = traverse_util.unflatten_dict(flat, sep="/")
    convolution = params["encoder"]["context"]["positions"]
    convolution["scale"] = convolution["scale"].reshape(-1)
    if not classifier:
        book = params["quantizer"]["codebook"]
        params["quantizer"]["codebook"] = book.reshape(GROUPS, CODES, WIDTH // GROUPS)
    return params


Row = tuple[str, tuple[int, ...], tuple[int, ...]]  # our path, its shape there, its axes' order


def encoder(size: Size, token: int, blocks: int) -> dict[str, Row]:
    D = size.width
    rows: dict[str, Row] = {}
    for i in range(blocks):
        name = "conv_stem" if i == 0 else f"conv{i}"
        shape = (token, LEADS if i == 0 else token, 2)
        path = f"encoder/tokenizer/{name}/kernel"
        rows[f"feature_extractor.conv_layers.{i}.0.weight"] = (path, shape, (2, 1, 0))
    stem = "encoder/tokenizer/norm_stem"
    rows |= _norm("feature_extractor.conv_layers.0.2", stem, token)
    rows |= _norm("layer_norm", "encoder/norm_token", token)
    rows |= _linear("post_extract_proj", "encoder/project", token, D)
    at = "encoder/context/positions"
    rows["conv_pos.pos_conv.0.bias"] = (f"{at}/bias", (D,), ())
    rows["conv_pos.pos_conv.0.weight_g"] = (f"{at}/scale", (1, 1, TAPS), ())
    shape = (D, D // CONVOLUTION_GROUPS, TAPS)
    rows["conv_pos.pos_conv.0.weight_v"] = (f"{at}/kernel", shape, (2, 1, 0))
    rows |= _norm("encoder.layer_norm", "encoder/context/norm", D)
    for i in range(size.layers):
        theirs, ours = f"encoder.layers.{i}", f"encoder/context/layer{i}"
        for name, own in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "out")):
            rows |= _linear(f"{theirs}.self_attn.{name}_proj", f"{ours}/{own}", D, D)
        rows |= _norm(f"{theirs}.self_attn_layer_norm", f"{ours}/norm_attention", D)
        rows |= _linear(f"{theirs}.fc1", f"{ours}/mlp", D, size.mlp)
        rows |= _linear(f"{theirs}.fc2", f"{ours}/mlp_out", size.mlp, D)
        rows |= _norm(f"{theirs}.final_layer_norm", f"{ours}/norm_mlp", D)
    return rows


def pretraining(size: Size, token: int) -> dict[str, Row]:
    codebook = (1, GROUPS * CODES, WIDTH // GROUPS)
    return {
        "mask_emb": ("token", (size.width,), ()),
        "quantizer.vars": ("quantizer/codebook", codebook, ()),
        **_linear("quantizer.weight_proj", "quantizer/logits", token, GROUPS * CODES),
        **_linear("project_q", "target_head", WIDTH, WIDTH),
        **_linear("final_proj", "context_head", size.width, WIDTH),
    }


def _classes(tensors: Tensors, size: Size) -> dict[str, Row]:
    return _linear("proj", "head", size.width, len(tensors.get("proj.bias", ())))


def _linear(name: str, path: str, n: int, m: int) -> dict[str, Row]:
    return {
        f"{name}.weight": (f"{path}/kernel", (m, n), (1, 0)),
        f"{name}.bias": (f"{path}/bias", (m,), ()),
    }


def _norm(name: str, path: str, n: int) -> dict[str, Row]:
    return {
        f"{name}.weight": (f"{path}/scale", (n,), ()),
        f"{name}.bias": (f"{path}/bias", (n,), ()),
    }
