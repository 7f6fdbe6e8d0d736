"""1-D residual networks for ECGs (He et al. 2016, arXiv 1512.03385, with 1-D convolutions).

ETP section 3.2 and METS section 3.1.2 take ResNet-18 and turn its kernels into 1-D ones.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ecg_jax.errors import UserError
from ecg_jax.models.batch_norm import BatchNorm, Branch, activate, relu
from ecg_jax.models.conv1d import Conv, beside
from ecg_jax.models.norm_pool import relu_mean, relu_pool

STRIDE = 32  # samples between two positions of the feature map
STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def activations(name: str, platform: str) -> jnp.dtype:
    """The type of activations: "auto" is bfloat16 on an accelerator and float32 on a CPU.

    Raises:
      UserError: neither "auto", "float32" nor "bfloat16".
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise UserError(f"unknown model dtype {name!r}: there are auto, float32, bfloat16")
    if name == "auto":
        name = "float32" if platform == "cpu" else "bfloat16"
    return jnp.dtype(name)


class Block(nn.Module):
    """Two 3-wide convolutions around a shortcut (ResNet-18 and -34).

    Attributes:
      passes: train and platform, of `activate`.
      mean: the result is its mean over time, float32; in training only.
    """

    width: int
    stride: int
    conv: type[Conv] | partial
    norm: Callable[..., BatchNorm]
    passes: dict[str, Any]
    mean: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.stride > 1 and self.passes["platform"] != "cpu":
            return self.beside(x)
        y = self.conv(self.width, 3, self.stride)(x)
        y = self.relu(self.norm()(y))
        y = self.conv(self.width, 3)(y)
        return self.join(self.norm()(y), x, self.width)

    def beside(self, x: jax.Array) -> jax.Array:
        """As `__call__`, the strided convolutions as one: more arithmetic, and fewer bytes."""
        first = self.conv(self.width, 3, self.stride)
        shortcut = self.conv(self.width, 1, self.stride, name="conv_shortcut")
        w, one = (conv.weights(x.shape[-1]) for conv in (first, shortcut))
        both = beside(x, w, one, self.stride)
        y = self.relu(self.norm()(both, 0, 2))
        y = self.norm()(self.conv(self.width, 3)(y))
        return self.out(y, self.norm(name="norm_shortcut")(both, 1, 2))

    def relu(self, *branches: Branch) -> jax.Array:
        return activate(relu, *branches, **self.passes)

    def join(self, y: Branch, x: jax.Array, width: int) -> jax.Array:
        """ReLU of y and the shortcut from x: itself, or projected where shapes differ."""
        if x.shape[-1] == width and self.stride == 1:
            return self.out(y, residual=x)
        x = self.conv(width, 1, self.stride, name="conv_shortcut")(x)
        return self.out(y, self.norm(name="norm_shortcut")(x))

    def out(self, *branches: Branch, residual: jax.Array | None = None) -> jax.Array:
        if self.mean:
            return relu_mean(*branches, residual=residual, platform=self.passes["platform"])
        return activate(relu, *branches, residual=residual, **self.passes)


class Bottleneck(Block):
    """1-3-1 convolutions with four times the width at the end (ResNet-50)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.relu(self.norm()(self.conv(self.width, 1)(x)))
        y = self.relu(self.norm()(self.conv(self.width, 3, self.stride)(y)))
        y = self.norm()(self.conv(4 * self.width, 1)(y))
        return self.join(y, x, 4 * self.width)


class ResNet1D(nn.Module):
    """ECG encoder: [B, T, 12] float -> features float32 [B, D] (D = 512; 2,048 at depth 50).

    Attributes:
      depth: 18, 34 or 50.
      width: channels of the first stage.
      dtype: of activations and convolutions; parameters and statistics stay float32.
      momentum: of BatchNorm's running statistics (PyTorch's 0.1 is 0.9 here).
      form: of the convolutions, see `conv1d.Conv`.
      remat: keep only the blocks' inputs for the backward pass and compute the rest again.
      platform: of the devices that it is compiled for: cpu, gpu or tpu.
    """

    depth: int = 18
    width: int = 64
    dtype: jnp.dtype = jnp.float32
    momentum: float = 0.9
    form: str = "auto"
    remat: bool = False
    platform: str = "cpu"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, pool: bool = True) -> jax.Array:
        """With `pool=False`, the feature map [B, ceil(T / 32), D] in `dtype`."""
        conv = partial(Conv, dtype=self.dtype, form=self.form, platform=self.platform)
        passes = {"train": train, "platform": self.platform}
        norm = partial(BatchNorm, momentum=self.momentum, **passes)
        x = x.astype(self.dtype)
        x = conv(self.width, 7, 2, name="conv_stem")(x)
        x = relu_pool(norm(name="norm_stem")(x), **passes)
        kind = Bottleneck if self.depth == 50 else Block
        if self.remat:
            kind = nn.remat(kind)
        stages, mean = STAGES[self.depth], False
        only_mean = train and pool and not self.is_mutable_collection("stages")
        for stage, blocks in enumerate(stages):
            for i in range(blocks):
                stride = 2 if stage > 0 and i == 0 else 1
                name = f"stage{stage + 1}_block{i + 1}"
                mean = (stage, i + 1) == (len(stages) - 1, blocks) and only_mean
                x = kind(self.width * 2**stage, stride, conv, norm, passes, mean, name=name)(x)
            if not self.is_initializing():
                self.sow("stages", f"stage{stage + 1}", x)  # for `stages`
            if 0 < stage < len(stages) - 1:
                self.sow("intermediates", "earlier", x)
        if mean:
            return x
        self.sow("intermediates", "map", x)  # for `feature_maps`; nothing, unless it is asked for
        return x.mean(axis=1, dtype=jnp.float32) if pool else x


def stages(network: nn.Module, variables: Any, x: jax.Array, train: bool) -> tuple[tuple, Any]:
    """What the stages of the one encoder in a network make of x [N, T, 12], from the finest to the
    coarsest [N, T_i, D_i], of an encoder without stages its map; and, in training mode,
    {"batch_stats"} after it."""
    kept = ["stages", "intermediates", *(["batch_stats"] if train else [])]
    _, found = network.apply(variables, x, train=train, mutable=kept)
    each = jax.tree.leaves(found.get("stages", {}))
    if not each:
        each = [feature_maps(found["intermediates"], len(x))[0]]
    updated = {name: tree for name, tree in found.items() if name == "batch_stats"}
    return tuple(sorted(each, key=lambda stage: -stage.shape[1])), updated


def feature_maps(intermediates: Any, N: int) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """The maps of an encoder inside a network that was applied to N records with
    `mutable=["intermediates"]`: the last one, [N, P, D], and those of earlier stages, [N, P', D']
    each, none of an encoder without stages. Of one that sees stretches of a record by themselves,
    their maps one after the other."""
    leaves = jax.tree_util.tree_leaves_with_path(intermediates)

    def named(name: str) -> tuple[jax.Array, ...]:
        found = [x for path, x in leaves if jax.tree_util.DictKey(name) in path]
        return tuple(x.reshape(N, -1, x.shape[-1]) for x in found)

    (last,) = named("map")
    return last, named("earlier")
