"""A slow copy of a network (BYOL's target, MoCo's key encoder): {"params", "batch_stats"}."""

from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def copy(params: Tree, state: Tree) -> Tree:
    return {"params": params, "batch_stats": state["batch_stats"]}


def follow(slow: Tree, params: Tree, state: Tree, momentum: jax.Array | float) -> Tree:
    """momentum * slow + (1 - momentum) * network, of parameters and BatchNorm statistics alike."""
    network = copy(params, state)
    return jax.tree.map(lambda s, n: momentum * s + (1 - momentum) * n, slow, network)


def rising(momentum: float, step: jax.Array, steps: jax.Array) -> jax.Array:
    """From `momentum` to 1 along a cosine."""
    return 1 - (1 - momentum) * (jnp.cos(jnp.pi * step / steps) + 1) / 2
