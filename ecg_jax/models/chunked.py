"""A large batch through a network in parts, for losses that need all of it at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ecg_jax.errors import UserError

Tree = Any


def check_chunks(batch_size: int, chunks: int) -> None:
    """Raises a UserError unless the chunks divide the batch into two records or more each."""
    if chunks < 1 or batch_size % chunks:
        raise UserError(
            f"a batch of {batch_size} does not divide into {chunks} chunks: "
            "set --config.accumulate to a divisor of it"
        )
    if batch_size < 2 * chunks:
        raise UserError(
            f"a batch of {batch_size} in {chunks} chunks: records are compared with each other, so "
            "that each chunk needs two or more: raise --config.batch_size or lower accumulate"
        )


def in_chunks(
    encode: Callable[[jax.Array], tuple[Tree, Tree]], x: jax.Array, chunks: int, platform: str
) -> tuple[Tree, Tree]:
    """Embedding-gradient caching (GradCache; Gao et al. 2021, arXiv 2101.06983, section 3.2).

    `encode` runs on one chunk after the other and keeps the features only; a loss over all of
    them gives the gradient of every feature, and the backward pass encodes each chunk a second
    time to go on from there. So the loss sees the full batch's negatives while the memory is one
    chunk's. Value and gradient are those of the full batch, but for what `encode` itself computes
    across records: BatchNorm normalises each chunk by its own statistics.

    Args:
      encode: x [B / chunks, ...] -> (features, statistics); features is an array [B / chunks, ...]
        or a tree of such.
      x: [B, ...]; chunk c has rows c, c + chunks, ..., which lie evenly over the devices.
      chunks: a divisor of B.
      platform: of the devices; on a CPU the chunks are no loop.

    Returns:
      features, [B, ...] in the order of x, and the mean over the chunks of each statistic.
    """
    if chunks == 1:
        return encode(x)
    parts = x.reshape(x.shape[0] // chunks, chunks, *x.shape[1:]).swapaxes(0, 1)
    encode = jax.checkpoint(encode)
    if platform == "cpu":  # no loop around convolutions: see training.step
        pairs = [encode(part) for part in parts]
        features, statistics = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pairs)
    else:
        features, statistics = jax.lax.map(encode, parts)

    def whole(parts: jax.Array) -> jax.Array:
        return parts.swapaxes(0, 1).reshape(x.shape[0], *parts.shape[2:])

    def mean(leaf: jax.Array) -> jax.Array:  # seeds and counts are the same in all
        return leaf.mean(axis=0) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf[0]

    return jax.tree.map(whole, features), jax.tree.map(mean, statistics)
