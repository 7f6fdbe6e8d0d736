"""The optimisers and learning-rate schedules that the recipes name."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ecg_jax import Config
from ecg_jax.errors import UserError

# Parameters' names, as Flax's layers have them; the last three are a state space's (models/s4.py).
UNDECAYED = ("bias", "scale", "log_step", "log_decay", "pitch")


def build(config: Config, steps_per_epoch: int) -> optax.GradientTransformationExtraArgs:
    """The optimiser of `config.optimizer` for a run of `config.epochs`.

    `adam` adds `weight_decay * parameter` to the gradient before Adam's moments, for every
    parameter, as PyTorch's Adam does (the papers' recipes); `adamw` decays apart from them, and
    only matrices and kernels. `schedule`: `constant`, or `cosine` to zero; both after a linear
    warm-up of `warmup_epochs`.

    Raises:
      UserError: an unknown optimiser or schedule.
    """
    c = config.optimizer
    total, warmup = config.epochs * steps_per_epoch, round(c.warmup_epochs * steps_per_epoch)
    if c.schedule == "constant":
        rest = optax.constant_schedule(c.learning_rate)
    elif c.schedule == "cosine":
        rest = optax.cosine_decay_schedule(c.learning_rate, max(total - warmup, 1))
    else:
        raise UserError(f"unknown schedule {c.schedule!r}: there are constant, cosine")
    ramp = optax.linear_schedule(c.learning_rate / max(warmup, 1), c.learning_rate, warmup)
    rate = optax.join_schedules([ramp, rest], [warmup]) if warmup else rest
    if c.name == "adam":
        chain = [optax.add_decayed_weights(c.weight_decay), optax.adam(rate, c.b1, c.b2)]
    elif c.name == "adamw":
        chain = [optax.adamw(rate, c.b1, c.b2, weight_decay=c.weight_decay, mask=matrices)]
    else:
        raise UserError(f"unknown optimiser {c.name!r}: there are adam, adamw")
    clip = [clip_by_norm(c.clip)] if c.clip else []
    return optax.with_extra_args_support(optax.chain(*clip, *chain))


def norm_of(gradient: optax.Updates) -> jax.Array:
    """`optax.tree.norm`, with few passes: the squares' sums of all arrays are summed at once."""
    leaves = jax.tree.leaves(gradient)
    vectors = [jnp.square(g).reshape(-1) for g in leaves if g.ndim < 2]
    sums = [jnp.sum(jnp.square(g), tuple(range(g.ndim - 1))) for g in leaves if g.ndim > 1]
    return jnp.sqrt(jnp.sum(jax.lax.optimization_barrier(jnp.concatenate(vectors + sums))))


def clip_by_norm(most: float) -> optax.GradientTransformationExtraArgs:
    """`optax.clip_by_global_norm`; `update` may be given the norm, as `norm`."""

    def update(updates: Any, state: Any, params: Any = None, **given: Any) -> Any:
        norm = given.get("norm")
        norm = norm_of(updates) if norm is None else norm
        short = norm < most
        return jax.tree.map(lambda g: jnp.where(short, g, g / norm * most), updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def matrices(params: optax.Params) -> optax.Params:
    """True for what weight decay is meant for: matrices and kernels, not biases or scales, whatever
    their shape (those of attention's queries are [heads, dim])."""

    def decayed(path: tuple, p: jax.Array) -> bool:
        return p.ndim > 1 and jax.tree_util.keystr(path[-1:], simple=True) not in UNDECAYED

    return jax.tree_util.tree_map_with_path(decayed, params)


def running_mean(decay: float, step: jax.Array, mean: Any, new: Any) -> Any:
    """Polyak's average with the usual warm-up: decay min(d, (1 + t) / (10 + t)) at update t. What
    is no real number, such as a counter, is taken as it is."""
    if mean is None:
        return None
    d = jnp.minimum(decay, (1 + step) / (10 + step))

    def mix(a: jax.Array, b: jax.Array) -> jax.Array:
        real = jnp.issubdtype(a.dtype, jnp.floating)
        return (d * a + (1 - d) * b).astype(a.dtype) if real else b

    return jax.tree.map(mix, mean, new)
