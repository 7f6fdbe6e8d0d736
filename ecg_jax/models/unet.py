"""A U-Net's way up (Ronneberger et al. 2015, arXiv 1505.04597) from an encoder's stages to a class
for every sample of every lead."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn


class Decoder(nn.Module):
    """(stages [B, T_i, D_i], x [B, T, C]) -> logits float32 [B, T, C, classes].

    From the coarsest stage on: to the next finer one's length by linear interpolation, beside that
    stage, two convolutions of 3. The recording itself is the finest stage, as boundaries lie
    between two of its samples.

    Attributes:
      width: channels of all convolutions.
    """

    width: int
    classes: int

    @nn.compact
    def __call__(self, stages: Sequence[jax.Array], x: jax.Array) -> jax.Array:
        B, T, C = x.shape
        finest = nn.relu(nn.Conv(self.width, (7,), name="conv_input")(x.astype(jnp.float32)))
        levels = sorted(stages, key=lambda stage: stage.shape[1])
        y = self._block(levels[0].astype(jnp.float32), 0)
        for i, stage in enumerate([*levels[1:], finest], start=1):
            y = jax.image.resize(y, (B, stage.shape[1], y.shape[2]), "linear")
            y = self._block(jnp.concatenate([y, stage.astype(jnp.float32)], axis=2), i)
        return nn.Dense(C * self.classes, name="out")(y).reshape(B, T, C, self.classes)

    def _block(self, x: jax.Array, level: int) -> jax.Array:
        for i in range(2):
            x = nn.Conv(self.width, (3,), name=f"conv{level}_{i}")(x)
            x = nn.relu(nn.LayerNorm(name=f"norm{level}_{i}")(x))
        return x
