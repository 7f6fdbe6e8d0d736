"""1-D residual networks for ECGs (He et al. 2016, arXiv 1512.03385, with 1-D convolutions).

ETP section 3.2 and METS section 3.1.2 take ResNet-18 and turn its kernels into 1-D ones.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from ecg_jax.errors import UserError
from ecg_jax.models.conv1d import Conv

STRIDE = 32  # samples between two positions of the feature map
STAGES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def activations(name: str) -> jnp.dtype:
    """The type of activations: "auto" is bfloat16 on an accelerator and float32 on a CPU.

    Raises:
      UserError: neither "auto", "float32" nor "bfloat16".
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise UserError(f"unknown model dtype {name!r}: there are auto, float32, bfloat16")
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)


def max_pool(x: jax.Array) -> jax.Array:
    """Maximum over windows of 3 with stride 2: [B, T, C] -> [B, ceil(T / 2), C].

    Written as a maximum of shifted slices, whose backward pass is elementwise; that of
    `reduce_window` is a scatter.
    """
    T = x.shape[1]
    x = jnp.pad(x, ((0, 0), (1, 1 + T % 2), (0, 0)), constant_values=-jnp.inf)
    even, odd = x[:, 0::2], x[:, 1::2]
    return jnp.maximum(jnp.maximum(even[:, :-1], odd[:, : even.shape[1] - 1]), even[:, 1:])


class Block(nn.Module):
    """Two 3-wide convolutions around a shortcut (ResNet-18 and -34)."""

    width: int
    stride: int
    conv: type[Conv] | partial
    norm: type[nn.BatchNorm] | partial

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(self.width, 3, self.stride)(x)
        y = nn.relu(self.norm()(y))
        y = self.conv(self.width, 3)(y)
        y = self.norm()(y)
        return nn.relu(y + self.shortcut(x, self.width))

    def shortcut(self, x: jax.Array, width: int) -> jax.Array:
        if x.shape[-1] == width and self.stride == 1:
            return x
        x = self.conv(width, 1, self.stride, name="conv_shortcut")(x)
        return self.norm(name="norm_shortcut")(x)


class Bottleneck(Block):
    """1-3-1 convolutions with four times the width at the end (ResNet-50)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.relu(self.norm()(self.conv(self.width, 1)(x)))
        y = nn.relu(self.norm()(self.conv(self.width, 3, self.stride)(y)))
        y = self.norm()(self.conv(4 * self.width, 1)(y))
        return nn.relu(y + self.shortcut(x, 4 * self.width))


class ResNet1D(nn.Module):
    """ECG encoder: [B, T, 12] float -> features float32 [B, D] (D = 512; 2,048 at depth 50).

    Attributes:
      depth: 18, 34 or 50.
      width: channels of the first stage.
      dtype: of activations and convolutions; parameters and statistics stay float32.
      momentum: of BatchNorm's running statistics (PyTorch's 0.1 is 0.9 here).
      form: of the convolutions, see `conv1d.Conv`.
      remat: keep only the blocks' inputs for the backward pass and compute the rest again.
    """

    depth: int = 18
    width: int = 64
    dtype: jnp.dtype = jnp.float32
    momentum: float = 0.9
    form: str = "auto"
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, pool: bool = True) -> jax.Array:
        """With `pool=False`, the feature map [B, ceil(T / 32), D] in `dtype`."""
        conv = partial(Conv, dtype=self.dtype, form=self.form)
        norm = partial(
            nn.BatchNorm, use_running_average=not train, momentum=self.momentum, dtype=self.dtype
        )
        x = x.astype(self.dtype)
        x = conv(self.width, 7, 2, name="conv_stem")(x)
        x = max_pool(nn.relu(norm(name="norm_stem")(x)))
        kind = Bottleneck if self.depth == 50 else Block
        if self.remat:
            kind = nn.remat(kind)
        for stage, blocks in enumerate(STAGES[self.depth]):
            for i in range(blocks):
                stride = 2 if stage > 0 and i == 0 else 1
                name = f"stage{stage + 1}_block{i + 1}"
                x = kind(self.width * 2**stage, stride, conv, norm, name=name)(x)
        return x.mean(axis=1, dtype=jnp.float32) if pool else x
