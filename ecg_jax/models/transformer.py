"""Transformer encoder (Vaswani et al. 2017, arXiv 1706.03762), normalised before each part (Wang
et al. 2019, arXiv 1906.01787)."""

import jax
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
        mask = seen[..., None, None, :]  # the same for all heads and queries
        for i in range(self.layers):
            y = nn.LayerNorm(name=f"norm_attention{i}")(x)
            x = x + nn.MultiHeadDotProductAttention(self.heads, name=f"attention{i}")(y, mask=mask)
            y = nn.Dense(self.mlp, name=f"mlp{i}")(nn.LayerNorm(name=f"norm_mlp{i}")(x))
            x = x + nn.Dense(x.shape[-1], name=f"out{i}")(nn.relu(y))
        return x
