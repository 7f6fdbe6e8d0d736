"""Projection heads from a tower's features to the shared space."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from ecg_jax.errors import UserError


class MLP(nn.Module):
    """[..., F] -> float32 [..., widths[-1]]: layers of `widths` with ReLU between them.

    Attributes:
      widths: units of each layer.
      norm: BatchNorm after each hidden layer, over all axes but the last.
      norm_last: and after the last layer, without a scale or shift of its own.
    """

    widths: tuple[int, ...]
    norm: bool = True
    norm_last: bool = False

    def __post_init__(self) -> None:
        if min(self.widths) < 1:
            raise UserError(
                f"a head's layers of {', '.join(map(str, self.widths))} units: each needs one or "
                "more, see --config.model.hidden and dim"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = x.astype(jnp.float32)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        for width in self.widths[:-1]:
            x = nn.Dense(width, use_bias=not self.norm)(x)
            x = nn.relu(norm()(x) if self.norm else x)
        x = nn.Dense(self.widths[-1], use_bias=not self.norm_last, name="out")(x)
        if self.norm_last:
            x = norm(use_bias=False, use_scale=False)(x)
        return x


def normalize(x: jax.Array) -> jax.Array:
    """Unit length along the last axis; a zero vector stays zero and has a finite gradient."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))
