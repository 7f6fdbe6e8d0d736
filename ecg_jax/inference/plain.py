"""An encoder as plain convolutions, BatchNorm folded into them: what other frameworks are given."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ecg_jax.errors import UserError
from ecg_jax.inference.exported import Parts
from ecg_jax.models.batch_norm import EPSILON
from ecg_jax.models.resnet1d import STAGES
from ecg_jax.run.experiment import NO_TOWER


class Layer(NamedTuple):
    """A convolution over time, padded by half its kernel on either side.

    Attributes:
      kernel: float32 [out, in, width].
      bias: float32 [out].
      stride: samples.
    """

    kernel: np.ndarray
    bias: np.ndarray
    stride: int


class Block(NamedTuple):
    """ReLU(last layer(... ReLU(first layer)) + shortcut); the shortcut None is the input itself."""

    layers: tuple[Layer, ...]
    shortcut: Layer | None


class Plain(NamedTuple):
    """Attributes:
    samples, rate: what it was trained on, in samples and Hz; leads in the order of config.json.
    stem: then ReLU, and the maximum over windows of 3 with stride 2, padded by 1.
    blocks: one after the other; the features are the mean over time.
    head: kernel [D, E] and bias [E] of the joint space, of unit length after it; or None.
    """

    samples: int
    rate: int
    stem: Layer
    blocks: tuple[Block, ...]
    head: tuple[np.ndarray, np.ndarray] | None


def plain(parts: Parts) -> Plain:
    """Of an export or a run.

    Raises:
      UserError: an encoder that is not one ResNet on all leads in millivolts.
    """
    given, method = parts.description["input"], parts.description["method"]
    if given["normalize"] != "millivolt":
        raise UserError(f"normalised by {given['normalize']}: only millivolt is written elsewhere")
    arrays = parts.arrays
    kind = parts.description["model"].get("encoder", "resnet1d")
    if kind != "resnet1d" or "params/encoder/conv_stem/kernel" not in arrays:
        raise UserError(f"{method}: its encoder is no single ResNet")
    under = "method/batch_stats/encoder/"
    stats = under if f"{under}norm_stem/mean" in arrays else "method/batch_stats/"
    depth = parts.description["model"]["depth"]
    names = ("Conv_0", "Conv_1", "Conv_2")[: 3 if depth == 50 else 2]

    def layer(conv: str, norm: str, stride: int) -> Layer:
        return _folded(arrays, f"params/encoder/{conv}/kernel", norm, stats, stride)

    blocks = []
    for stage, count in enumerate(STAGES[depth]):
        for i in range(count):
            name = f"stage{stage + 1}_block{i + 1}"
            stride = 2 if stage > 0 and i == 0 else 1
            at = 1 if depth == 50 else 0  # which convolution has the stride
            layers = tuple(
                layer(f"{name}/{conv}", f"{name}/BatchNorm_{j}", stride if j == at else 1)
                for j, conv in enumerate(names)
            )
            shortcut = None
            if f"params/encoder/{name}/conv_shortcut/kernel" in arrays:
                shortcut = layer(f"{name}/conv_shortcut", f"{name}/norm_shortcut", stride)
            blocks.append(Block(layers, shortcut))
    head = None
    heads = {k for k in arrays if k.startswith("params/ecg_head/")}
    text = parts.description["text_tower"]["name"] != NO_TOWER["name"]
    if text and heads == {"params/ecg_head/out/kernel", "params/ecg_head/out/bias"}:
        head = arrays["params/ecg_head/out/kernel"], arrays["params/ecg_head/out/bias"]
    samples = round(given["seconds"] * given["rate_hz"])
    stem = layer("conv_stem", "norm_stem", 2)
    if stem.kernel.shape[1] != len(given["leads"]):
        raise UserError(f"{method}: its encoder sees {stem.kernel.shape[1]} leads at a time")
    return Plain(samples, given["rate_hz"], stem, tuple(blocks), head)


def _folded(arrays: Mapping[str, Any], kernel: str, norm: str, stats: str, stride: int) -> Layer:
    """scale (w * x - mean) / sqrt(var + eps) + bias, as one convolution."""
    scale = arrays[f"params/encoder/{norm}/scale"].astype(np.float64)
    scale = scale / np.sqrt(arrays[f"{stats}{norm}/var"].astype(np.float64) + EPSILON)
    bias = arrays[f"params/encoder/{norm}/bias"] - arrays[f"{stats}{norm}/mean"] * scale
    w = np.transpose(arrays[kernel] * scale, (2, 1, 0))  # [width, in, out] -> [out, in, width]
    return Layer(np.ascontiguousarray(w, np.float32), bias.astype(np.float32), stride)


def run(network: Plain, ecg: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Features [N, D] and embedding [N, E] (or None) of microvolts [N, T, 12], by NumPy: what the
    files for other frameworks are held against."""
    x = np.transpose(np.asarray(ecg, np.float32) / 1000, (0, 2, 1))
    x = np.maximum(_convolve(network.stem, x), 0)
    x = np.pad(x, ((0, 0), (0, 0), (1, 1)), constant_values=-np.inf)
    x = np.lib.stride_tricks.sliding_window_view(x, 3, axis=2)[:, :, ::2].max(axis=3)
    for block in network.blocks:
        y = x
        for layer in block.layers[:-1]:
            y = np.maximum(_convolve(layer, y), 0)
        shortcut = _convolve(block.shortcut, x) if block.shortcut else x
        x = np.maximum(_convolve(block.layers[-1], y) + shortcut, 0)
    features = x.mean(axis=2)
    if network.head is None:
        return features, None
    z = features @ network.head[0] + network.head[1]
    return features, z / np.sqrt(np.maximum((z * z).sum(axis=1, keepdims=True), 1e-12))


def _convolve(layer: Layer, x: np.ndarray) -> np.ndarray:
    """[N, in, T] -> [N, out, ceil(T / stride)]."""
    width = layer.kernel.shape[2]
    x = np.pad(x, ((0, 0), (0, 0), (width // 2, width // 2)))
    windows = np.lib.stride_tricks.sliding_window_view(x, width, axis=2)[:, :, :: layer.stride]
    y = np.tensordot(windows, layer.kernel, axes=((1, 3), (1, 2)))  # [N, T', out]
    return np.transpose(y + layer.bias, (0, 2, 1))
