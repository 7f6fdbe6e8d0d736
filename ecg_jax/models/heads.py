"""Projection heads from a tower's features to the shared space."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class Projection(nn.Module):
    """[B, F] -> float32 [B, D].

    ETP's text says "non-linear projectors" in section 2.1 and "linear projection heads" in
    3.2: `hidden=0` is one linear layer, otherwise a layer of `hidden` units with ReLU comes first.
    """

    dim: int
    hidden: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32)
        if self.hidden:
            x = nn.relu(nn.Dense(self.hidden)(x))
        return nn.Dense(self.dim, name="out")(x)


def normalize(x: jax.Array) -> jax.Array:
    """Unit length along the last axis; a zero vector stays zero and has a finite gradient."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))
