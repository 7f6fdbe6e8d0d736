"""BatchNorm and ReLU with the pooling that follows them at either end of a residual network, in as
few passes over memory as `batch_norm` makes of the layers between."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ecg_jax.models.batch_norm import (
    Branch,
    activate,
    again,
    factors,
    gradient,
    normal,
    relu,
    step,
    sums,
    wide,
)


def relu_pool(b: Branch, *, train: bool, platform: str) -> jax.Array:
    """ReLU of a normalised branch [B, T, C], then the maximum over windows of 3 with stride 2:
    [B, ceil(T / 2), C], in the type of y. The gradient goes to the first of the largest values, on
    a TPU as they are in that type."""
    if platform == "tpu":
        # XLA has a TPU write the arrays of `_winners` out in float32; its own reduction of windows
        # and the gradient of that stay in y's type.
        z = activate(relu, b, train=train, platform=platform)
        sides = [(0, 0), (1, 1), (0, 0)]
        return lax.reduce_window(z, -jnp.inf, lax.max, (1, 3, 1), (1, 2, 1), sides)
    return (_relu_pool_trained if train else _relu_pool)(platform, b)


def _relu_pool(platform: str, b: Branch) -> jax.Array:
    before, at, after = windows(b.normalized(), -jnp.inf)
    return relu(jnp.maximum(jnp.maximum(before, at), after)).astype(b.whole.dtype)


def _relu_pool_forward(platform: str, b: Branch) -> tuple[jax.Array, Branch]:
    return lax.optimization_barrier(_relu_pool(platform, b)), b


def _relu_pool_backward(platform: str, b: Branch, dz: jax.Array) -> tuple[Branch]:
    (b,), _ = again((b,), None)
    live, *shares = _winners(b)
    g = wide(dz) * live
    of_windows = windows(b.centred(), 0)
    winner = sum(s * y for s, y in zip(shares, of_windows, strict=True))
    totals = sums((g, g * winner), platform=platform)
    (b,), (dz, totals) = again((b,), (dz, totals))
    live, before, at, after = _winners(b)
    g = wide(dz) * live
    odd = g * after + jnp.pad((g * before)[:, 1:], ((0, 0), (0, 1), (0, 0)))
    dx = jnp.stack([g * at, odd], axis=2).reshape(g.shape[0], -1, g.shape[2])
    return (gradient(b, dx[:, : b.whole.shape[1]], *totals),)


_relu_pool_trained = jax.custom_vjp(_relu_pool, nondiff_argnums=(0,))
_relu_pool_trained.defvjp(_relu_pool_forward, _relu_pool_backward)


def _winners(b: Branch) -> tuple[jax.Array, ...]:
    """Of every window: whether its maximum is above 0, and which of the three it is; 1 or 0."""
    before, at, after = windows(b.normalized(), -jnp.inf)
    top = jnp.maximum(jnp.maximum(before, at), after)
    first = 1 - step(top - before)
    second = (1 - first) * (1 - step(top - at))
    return step(top), first, second, 1 - first - second


def windows(x: jax.Array, fill: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x [B, T, C] at 2t - 1, 2t and 2t + 1, each [B, ceil(T / 2), C]; `fill` beyond its ends."""
    T = x.shape[1]
    x = jnp.pad(x, ((0, 0), (1, 1 + T % 2), (0, 0)), constant_values=fill)
    return x[:, 0:-2:2], x[:, 1:-1:2], x[:, 2::2]


def relu_mean(*branches: Branch, residual: jax.Array | None = None, platform: str) -> jax.Array:
    """The mean over time of `activate(relu, ...)` in training, float32 [B, C], which is not written
    itself: only where it is above zero, in bytes. The sums that the gradient needs of it are made
    with the mean."""
    return _relu_mean(platform, branches, residual)


def _relu_mean(platform: str, branches: tuple[Branch, ...], residual: jax.Array | None):
    return _relu_mean_forward(platform, branches, residual)[0]


def _relu_mean_forward(platform: str, branches: tuple[Branch, ...], residual: jax.Array | None):
    one, two, three = (normal(branches, residual, by) for by in factors(platform))
    live, T = step(one).astype(jnp.int8), one.shape[1]
    small = jnp.int16 if T < 2**15 else jnp.int32  # a kernel has room for it beside two others
    count = jnp.sum(step(three).astype(small), 1, dtype=small)
    of_y = tuple(jnp.sum(step(two) * b.centred(), 1) for b in branches)
    total, *others = lax.optimization_barrier((jnp.sum(relu(one), 1), live, count, of_y))
    of_sum = None if residual is None else ()
    return total * (1 / T), (branches, of_sum, *others)


def _relu_mean_backward(platform: str, saved: Any, df: jax.Array):
    branches, of_sum, live, count, of_y = saved
    share = 1 / branches[0].whole.shape[1]
    of_g, *of_y = (jnp.sum(df * s, 0) * share for s in (count, *of_y))
    branches, (live, of_g, of_y) = again(branches, (live, of_g, of_y))
    g = live * (df * share)[:, None]
    gradients = tuple(gradient(b, g, of_g, of) for b, of in zip(branches, of_y, strict=True))
    if of_sum is not None:  # written with the gradient of y
        of_sum = lax.optimization_barrier(g.astype(branches[0].whole.dtype))
    return gradients, of_sum


_relu_mean = jax.custom_vjp(_relu_mean, nondiff_argnums=(0,))
_relu_mean.defvjp(_relu_mean_forward, _relu_mean_backward)
