"""Regions of a feature map around heartbeats (RoIAlign, He et al. 2017, in one dimension)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ecg_jax.models.heads import MLP

BEFORE, AFTER = 0.25, 0.40  # s around the R peak
PLACES = 4  # at which the map is read


class Mapped(NamedTuple):
    """Of x [N, T, 12]: features float32 [N, D], projection [N, P], map float32 [N, L, D]."""

    features: jax.Array
    projection: jax.Array
    map: jax.Array


class MappedEncoder(nn.Module):
    """Encoder and projector, whose map in time is kept."""

    encoder: nn.Module
    projector: MLP

    def __call__(self, x: jax.Array, train: bool) -> Mapped:
        found = self.encoder(x, train, pool=False)
        features = found.mean(axis=1, dtype=jnp.float32)
        return Mapped(features, self.projector(features, train), found.astype(jnp.float32))


def regions(found: jax.Array, peak: jax.Array, stride: int, rate: float) -> jax.Array:
    """The map around each peak, read by linear interpolation, [N, K, PLACES * D].

    Position p of `ResNet1D`'s map is of sample p * stride, its convolutions being padded alike on
    both sides; of an encoder that does not pad, of one half a token later.

    Args:
      found: float32 [N, L, D].
      peak: int32 [N, K].
      stride: samples between two positions.
      rate: in Hz.
    """
    N, L, D = found.shape
    offsets = np.linspace(-BEFORE, AFTER, PLACES) * rate
    at = jnp.clip((peak[:, :, None] + offsets) / stride, 0, L - 1)  # [N, K, S]
    low = jnp.clip(at.astype(jnp.int32), 0, max(L - 2, 0))
    share = (at - low)[..., None]
    read = jax.vmap(lambda x, i: x[i])
    one = (1 - share) * read(found, low) + share * read(found, jnp.minimum(low + 1, L - 1))
    return one.reshape(N, peak.shape[1], PLACES * D)
