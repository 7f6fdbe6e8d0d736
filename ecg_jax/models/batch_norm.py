"""BatchNorm (Ioffe and Szegedy 2015, arXiv 1502.03167) with what follows it, for few passes over
memory: that, not arithmetic, holds an accelerator back.

`BatchNorm` takes the statistics of y, in one pass, and `activate` computes

    z = act(sum over branches of (y - mean) / sqrt(var + EPSILON) * scale + bias, plus a residual)

in a second one. The gradients are written by hand and take two passes: one over y and dz for two
sums of every channel, one for dy. Only the inputs are kept: what `act` was given is computed again,
which reads no more than a mask would.

So that XLA makes these passes and no others, masks are arithmetic (`step`; it writes a Boolean one
to memory, which is small, and reads it again), barriers part what is to be computed twice, and on
a GPU two sums are one of complex numbers (`sums`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

EPSILON = 1e-5

Sums = jax.Array | tuple[jax.Array, jax.Array]
Act = Callable[[jax.Array], jax.Array]


class Branch(NamedTuple):
    """An array that is to be normalised.

    Attributes:
      y: [..., C], in any floating type.
      scale, bias: float32 [C], parameters.
      running_mean, running_var: float32 [C].
      sums: of y less the running mean and of its square, as from `sums`; or None where the running
        statistics are taken. (Not mean and variance: whoever needs these makes them of the sums, in
        a pass that is made anyhow, and no kernel is needed to write them.)
    """

    y: jax.Array
    scale: jax.Array
    bias: jax.Array
    running_mean: jax.Array
    running_var: jax.Array
    sums: Sums | None

    def statistics(self) -> tuple[jax.Array, jax.Array]:
        """Mean and variance [C] that y is normalised by."""
        if self.sums is None:
            return self.running_mean, self.running_var
        mean, square = (s * (self.y.shape[-1] / self.y.size) for s in parts(self.sums))
        return self.running_mean + mean, jnp.maximum(square - mean * mean, 0)

    def normalized(self) -> jax.Array:
        """In float32, or float64 where that is given."""
        mean, var = self.statistics()
        gain = self.scale * lax.rsqrt(var + EPSILON)
        return wide(self.y) * gain + (self.bias - mean * gain)

    def centred(self) -> jax.Array:
        return wide(self.y) - self.statistics()[0]


class BatchNorm(nn.Module):
    """y [..., C] -> what `activate` needs of it; parameters and statistics are `nn.BatchNorm`'s.

    Attributes:
      train: with the statistics of y, over all axes but the last, which the running ones follow;
        else with those.
      momentum: of the running statistics.
      platform: see `sums`.
    """

    train: bool
    momentum: float = 0.9
    platform: str = "cpu"

    @nn.compact
    def __call__(self, y: jax.Array) -> Branch:
        C = y.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, C, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, C, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, C, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, C, jnp.float32)
        branch = Branch(y, scale, bias, mean.value, var.value, None)
        if not self.train:
            return branch
        # One pass for both sums. With the running mean, which is near, taken off before it is
        # squared, a mean far from zero costs the variance no digits.
        d = wide(lax.stop_gradient(y)) - mean.value
        branch = branch._replace(sums=sums(d, d * d, self.platform))
        if not self.is_initializing():
            m, apart = self.momentum, lax.optimization_barrier(branch.sums)
            new = branch._replace(sums=apart).statistics()
            mean.value, var.value = (
                m * old.value + (1 - m) * now for old, now in zip((mean, var), new, strict=True)
            )
        return branch


def activate(
    act: Act, *branches: Branch, residual: jax.Array | None = None, train: bool, platform: str
) -> jax.Array:
    """act of the sum of the normalised branches and the residual, in the type of the y.

    Args:
      act: a function of one array; its gradient is taken from `jax.vjp`.
      branches: one or two, of one shape [B, ..., C].
      residual: of that shape, with one branch; or None.
      train: whether mean and variance are those of the y. The gradient then takes into account that
        they change with y; for autodiff the sums are constants.
    """
    if not train:
        return _activate(act, platform, branches, residual)
    return _activate_trained(act, platform, branches, residual)


def _activate(
    act: Act, platform: str, branches: tuple[Branch, ...], residual: jax.Array | None
) -> jax.Array:
    return act(_sum(branches, residual)).astype(branches[0].y.dtype)


def _forward(act: Act, platform: str, branches: tuple[Branch, ...], residual: jax.Array | None):
    # Read where it is needed, and not computed again from what it was made of.
    z = lax.optimization_barrier(_activate(act, platform, branches, residual))
    return z, (branches, residual)


def _backward(act: Act, platform: str, saved: Any, dz: jax.Array):
    branches, residual = saved
    branches, residual = again(branches, residual)
    alone = residual is None and len(branches) == 1

    def pull() -> jax.Array:
        """The gradient of the sum; of dz's type, which holds it, where it is kept."""
        back = jax.vjp(act, _sum(branches, residual))[1]
        return back(wide(dz))[0].astype(jnp.promote_types(dz.dtype, jnp.float32))

    of_g: tuple[jax.Array, ...] = ()
    if alone:
        g = pull()
        totals = sums(g, g * branches[0].centred(), platform)
        branches, (dz, totals) = again(branches, (dz, totals))
        g, totals = pull(), parts(totals)
    else:
        kept = pull().astype(dz.dtype)
        g = wide(kept)
        if len(branches) == 1:
            totals = sums(g, g * branches[0].centred(), platform)
        else:
            first, second = (g * b.centred() for b in branches)
            totals = sums(first, second, platform)
            kept, totals = lax.optimization_barrier((kept, totals))
            of_g = (total(wide(kept), platform),)
        branches, (kept, totals, of_g) = again(branches, (kept, totals, of_g))
        g, totals = wide(kept), (*of_g, *parts(totals))
    gradients = tuple(
        gradient(b, g, totals[0], of_y) for b, of_y in zip(branches, totals[1:], strict=True)
    )
    return gradients, None if residual is None else kept


_activate_trained = jax.custom_vjp(_activate, nondiff_argnums=(0, 1))
_activate_trained.defvjp(_forward, _backward)


def again(branches: tuple[Branch, ...], others: Any) -> tuple[tuple[Branch, ...], Any]:
    """The same arrays, of which XLA makes nothing that it has made of them before."""
    ys, others = lax.optimization_barrier(([b.y for b in branches], others))
    return tuple(b._replace(y=y) for b, y in zip(branches, ys, strict=True)), others


def gradient(b: Branch, g: jax.Array, of_g: jax.Array, of_y: jax.Array) -> Branch:
    """The gradient of a branch whose normalised array has the gradient g.

    Args:
      of_g, of_y: float32 [C], the sums of g and of g times the centred y.
    """
    mean, var = b.statistics()
    n, rate = b.y.size // b.y.shape[-1], lax.rsqrt(var + EPSILON)
    gain = b.scale * rate
    slope = -gain * rate * rate * (of_y * (1 / n))
    dy = gain * g + slope * wide(b.y) - (gain * (of_g * (1 / n)) + slope * mean)
    nothing = jax.tree.map(jnp.zeros_like, b)
    return nothing._replace(y=dy.astype(b.y.dtype), scale=of_y * rate, bias=of_g)


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    return jnp.maximum(x, 0)


relu.defvjp(lambda x: (relu(x), x), lambda x, dz: (dz * step(x),))


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
    return relu(jnp.maximum(jnp.maximum(before, at), after)).astype(b.y.dtype)


def _relu_pool_forward(platform: str, b: Branch) -> tuple[jax.Array, Branch]:
    return lax.optimization_barrier(_relu_pool(platform, b)), b


def _relu_pool_backward(platform: str, b: Branch, dz: jax.Array) -> tuple[Branch]:
    (b,), _ = again((b,), None)
    live, *shares = _winners(b)
    g = wide(dz) * live
    of_windows = windows(b.centred(), 0)
    winner = sum(s * y for s, y in zip(shares, of_windows, strict=True))
    totals = sums(g, g * winner, platform)
    (b,), (dz, totals) = again((b,), (dz, totals))
    live, before, at, after = _winners(b)
    g = wide(dz) * live
    odd = g * after + jnp.pad((g * before)[:, 1:], ((0, 0), (0, 1), (0, 0)))
    dx = jnp.stack([g * at, odd], axis=2).reshape(g.shape[0], -1, g.shape[2])
    return (gradient(b, dx[:, : b.y.shape[1]], *parts(totals)),)


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


def step(x: jax.Array) -> jax.Array:
    """1 above 0, else 0."""
    return jnp.sign(jnp.maximum(x, 0))


def sums(a: jax.Array, b: jax.Array, platform: str) -> Sums:
    """Of two arrays [..., C], over all axes but the last; `parts` has them apart.

    For a GPU as one sum of complex numbers: XLA computes what two sums have in common, and would
    rather write and read it than compute it twice, before it sees that one pass can make both.
    """
    axes = tuple(range(a.ndim - 1))
    if platform != "gpu" or a.ndim < 3:
        return jnp.sum(a, axes), jnp.sum(b, axes)
    # Record by record first: XLA's own cut through the rows of all would part this pass from what
    # else it makes where it does not come out even.
    of_records = lax.optimization_barrier(jnp.sum(lax.complex(a, b), axes[1:]))
    return lax.optimization_barrier(of_records.sum(0))


def parts(sums: Sums) -> tuple[jax.Array, jax.Array]:
    return sums if isinstance(sums, tuple) else (sums.real, sums.imag)


def total(a: jax.Array, platform: str) -> jax.Array:
    """As `sums`, of one array."""
    axes = tuple(range(a.ndim - 1))
    if platform != "gpu" or a.ndim < 3:
        return jnp.sum(a, axes)
    return lax.optimization_barrier(lax.optimization_barrier(jnp.sum(a, axes[1:])).sum(0))


def wide(x: jax.Array) -> jax.Array:
    """In float32, or float64 where that is given."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _sum(branches: tuple[Branch, ...], residual: jax.Array | None) -> jax.Array:
    total = branches[0].normalized()
    for b in branches[1:]:
        total = total + b.normalized()
    return total if residual is None else total + wide(residual)
