"""Transformer encoder (Vaswani et al. 2017, arXiv 1706.03762), normalised before each part (Wang
et al. 2019, arXiv 1906.01787)."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class Transformer(nn.Module):
    """x [..., S, H] -> [..., S, H]; neither positions are added nor the result normalised.

    Attributes:
      layers: of attention and MLP.
      heads: of the attention; they divide H.
      mlp: hidden units of the MLP, with ReLU.
    """

    layers: int
    heads: int
    mlp: int

    @nn.compact
    def __call__(self, x: jax.Array, seen: jax.Array) -> jax.Array:
        """`seen` bool [..., S] says which tokens may be attended to."""
        # XLA finds no tiles for a GPU's product of heads and tokens (`Couldn't find output tile
        # sizes`) where the tokens are no power of two: unseen ones fill up.
        S = x.shape[-2]
        more = (1 << (S - 1).bit_length()) - S
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, more), (0, 0)])
        seen = jnp.pad(seen, [(0, 0)] * (seen.ndim - 1) + [(0, more)])
        mask = seen[..., None, None, :]  # the same for all heads and queries
        for i in range(self.layers):
            y = nn.LayerNorm(name=f"norm_attention{i}")(x)
            x = x + nn.MultiHeadDotProductAttention(self.heads, name=f"attention{i}")(y, mask=mask)
            y = nn.Dense(self.mlp, name=f"mlp{i}")(nn.LayerNorm(name=f"norm_mlp{i}")(x))
            x = x + nn.Dense(x.shape[-1], name=f"out{i}")(nn.relu(y))
        return x[..., :S, :]
