"""What a network draws at random in training: dropout."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn


class Draws(NamedTuple):
    """A key that is new in every training pass, and uint32, how many there were before this one."""

    key: jax.Array
    passes: jax.Array


def drawn(module: nn.Module, train: bool) -> Draws | None:
    """What a training pass draws from; None in any other. Inside a compact `__call__`.

    Seed and count lie in the module's statistics, beside BatchNorm's: so a method passes no keys to
    its network, a checkpoint goes on with the draws that would have come, and the draws depend
    neither on the number of devices nor on processes. Chunks of one batch (`config.accumulate`) and
    devices with statistics of their own draw alike.
    """
    statistics = module.variable("batch_stats", "noise", _start, module)
    seed, count = statistics.value
    if module.is_initializing() or not train:
        return None
    statistics.value = jnp.stack([seed, count + 1])
    return Draws(jax.random.fold_in(jax.random.key(seed), count), count)


def _start(module: nn.Module) -> jax.Array:
    """uint32 [2]: a seed, and how many passes there were."""
    seed = jax.random.bits(module.make_rng("params"), (), jnp.uint32)
    return jnp.stack([seed, jnp.uint32(0)])


def dropout(x: jax.Array, rate: float, key: jax.Array | None, place: int) -> jax.Array:
    """x with each number zeroed at `rate` and the others divided by 1 - `rate`; x itself without a
    key or rate. `place` tells the draws of one pass apart."""
    if key is None or not rate:
        return x
    keep = jax.random.bernoulli(jax.random.fold_in(key, place), 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)
