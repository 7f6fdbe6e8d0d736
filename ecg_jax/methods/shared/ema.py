"""A slow copy of a network (BYOL's target, MoCo's key encoder): {"params", "batch_stats"}.

Its statistics follow, too, where released code of both keeps those of the copy's own passes. No
loss reads them: in training it normalises by the batch's own.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ecg_jax.methods import Plan

Tree = Any


def copy(params: Tree, state: Tree) -> Tree:
    return {"params": params, "batch_stats": state["batch_stats"]}


def follow(slow: Tree, params: Tree, state: Tree, momentum: jax.Array | float) -> Tree:
    """momentum * slow + (1 - momentum) * network, of parameters and BatchNorm statistics alike."""
    network = copy(params, state)

    def mix(s: jax.Array, n: jax.Array) -> jax.Array:  # a seed or count is taken as it is
        return momentum * s + (1 - momentum) * n if jnp.issubdtype(s.dtype, jnp.floating) else n

    return jax.tree.map(mix, slow, network)


def rising(momentum: float, step: jax.Array, steps: jax.Array) -> jax.Array:
    """From `momentum` to 1 along a cosine."""
    return 1 - (1 - momentum) * (jnp.cos(jnp.pi * step / steps) + 1) / 2


def target(momentum: float) -> tuple[Callable, Callable]:
    """`memory` and `after_update` of a `Method` whose loss reads memory["target"]: a copy that
    follows with `momentum` at the start of the run and not at all at its end."""

    def memory(params: Tree, state: Tree, plan: Plan) -> dict:
        slow = copy(params, state)
        return {"target": slow, "step": jnp.int32(0), "steps": jnp.int32(plan.steps)}

    def after_update(params: Tree, state: Tree) -> Tree:
        old = state["memory"]
        now = rising(momentum, old["step"], old["steps"])
        slow = follow(old["target"], params, state, now)
        return {**state, "memory": {**old, "target": slow, "step": old["step"] + 1}}

    return memory, after_update
