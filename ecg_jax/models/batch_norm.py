"""BatchNorm (Ioffe and Szegedy 2015, arXiv 1502.03167) with what follows it, for few passes over
memory: that, not arithmetic, holds an accelerator back.

`BatchNorm` takes the statistics of y, in one pass, and `activate` computes

    z = act(sum over branches of (y - mean) / sqrt(var + EPSILON) * scale + bias, plus a residual)

in a second one. The gradients are written by hand and take two passes: one over y and dz for two
sums of every channel, one for dy. Only the inputs are kept: what `act` was given is computed again,
which reads no more than a mask would.

So that XLA makes these passes and no others, masks are arithmetic (`step`; it writes a Boolean one
to memory, which is small, and reads it again), barriers part what is to be computed twice, and on
a GPU the two sums of a pass are made of arrays that have nothing in common (`in_parts`).
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

EPSILON = 1e-5

Sums = tuple[jax.Array, ...]
Act = Callable[[jax.Array], jax.Array]


@flax.struct.dataclass
class Branch:
    """An array that is to be normalised.

    Attributes:
      whole: [..., n C], in any floating type, of which the channels of `part` are meant (an array
        of their own would have to be written first).
      scale, bias: float32 [C], parameters.
      running_mean, running_var: float32 [C].
      sums: of y less the running mean and of its square, as from `sums`; or None where the running
        statistics are taken. (Not mean and variance: whoever needs these makes them of the sums, in
        a pass that is made anyhow, and no kernel is needed to write them.)
      part: 0 ... n - 1.
    """

    whole: jax.Array
    scale: jax.Array
    bias: jax.Array
    running_mean: jax.Array
    running_var: jax.Array
    sums: Sums | None
    part: int = flax.struct.field(pytree_node=False, default=0)

    @property
    def y(self) -> jax.Array:
        """[..., C]"""
        return channels(self.whole, self.part, len(self.scale))

    def statistics(self) -> tuple[jax.Array, jax.Array]:
        """Mean and variance [C] that y is normalised by."""
        if self.sums is None:
            return self.running_mean, self.running_var
        mean, square = (s * (self.whole.shape[-1] / self.whole.size) for s in self.sums)
        return self.running_mean + mean, jnp.maximum(square - mean * mean, 0)

    def normalized(self, by: float = 1.0) -> jax.Array:
        """Times `by`; in float32, or float64 where that is given."""
        mean, var = self.statistics()
        gain = by * self.scale * lax.rsqrt(var + EPSILON)
        return wide(self.y) * gain + (by * self.bias - mean * gain)

    def centred(self) -> jax.Array:
        return wide(self.y) - self.statistics()[0]


class BatchNorm(nn.Module):
    """What `activate` needs of an array, or of a part of its channels, see `Branch`; parameters and
    statistics are `nn.BatchNorm`'s.

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
    def __call__(self, whole: jax.Array, part: int = 0, parts: int = 1) -> Branch:
        C = (whole.shape[-1] // parts,)
        scale = self.param("scale", nn.initializers.ones, C, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, C, jnp.float32)
        mean = self.variable("batch_stats", "mean", jnp.zeros, C, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, C, jnp.float32)
        branch = Branch(whole, scale, bias, mean.value, var.value, None, part)
        if not self.train:
            return branch
        # One pass for both sums. With the running mean, which is near, taken off before it is
        # squared, a mean far from zero costs the variance no digits.
        seen = lax.stop_gradient(whole)
        if part:  # or XLA would mix the sums of two parts and read both twice
            seen = lax.optimization_barrier(seen)
        y = wide(channels(seen, part, *C))
        d, e = y - mean.value, mean.value - y  # see `sums`
        branch = dataclasses.replace(branch, sums=sums((d,), (e * e,), platform=self.platform))
        if not self.is_initializing():
            m, apart = self.momentum, lax.optimization_barrier(branch.sums)
            new = dataclasses.replace(branch, sums=apart).statistics()
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
    return act(normal(branches, residual)).astype(branches[0].whole.dtype)


def _forward(act: Act, platform: str, branches: tuple[Branch, ...], residual: jax.Array | None):
    # Read where it is needed, and not computed again from what it was made of.
    z = lax.optimization_barrier(_activate(act, platform, branches, residual))
    return z, (branches, residual)


def _backward(act: Act, platform: str, saved: Any, dz: jax.Array):
    branches, residual = saved
    branches, residual = again(branches, residual)
    alone = residual is None and len(branches) == 1

    def pull(by: float = 1.0) -> jax.Array:
        """The gradient of the sum."""
        back = jax.vjp(act, normal(branches, residual, by))[1]
        return back(wide(dz))[0].astype(jnp.promote_types(dz.dtype, jnp.float32))

    def kept(by: float = 1.0) -> jax.Array:
        """In dz's type, which holds it, where it is written."""
        return pull(by) if alone else wide(pull(by).astype(dz.dtype))

    one, other, _ = factors(platform)
    g, first, last = kept(one), branches[0], branches[-1]
    if len(branches) == 1:
        totals = sums((g,), (kept(other) * last.centred(),), platform=platform)
    else:
        of_y = in_parts((g * first.centred(),), (kept(other) * last.centred(),), platform=platform)
        g, of_y = lax.optimization_barrier((g.astype(dz.dtype), of_y))
        totals = of_all((*in_parts((wide(g),), platform=platform), *of_y), platform)
    if alone:
        branches, (dz, totals) = again(branches, (dz, totals))
        of_sum, g = None, pull()
    else:
        branches, (of_sum, totals) = again(branches, (g.astype(dz.dtype), totals))
        g = wide(of_sum)
    gradients = tuple(
        gradient(b, g, totals[0], of_y) for b, of_y in zip(branches, totals[1:], strict=True)
    )
    return gradients, None if residual is None else of_sum


_activate_trained = jax.custom_vjp(_activate, nondiff_argnums=(0, 1))
_activate_trained.defvjp(_forward, _backward)


def again(branches: tuple[Branch, ...], others: Any) -> tuple[tuple[Branch, ...], Any]:
    """The same arrays, of which XLA makes nothing that it has made of them before."""
    arrays, others = lax.optimization_barrier(([b.whole for b in branches], others))
    return tuple(
        dataclasses.replace(b, whole=a) for b, a in zip(branches, arrays, strict=True)
    ), others


def gradient(b: Branch, g: jax.Array, of_g: jax.Array, of_y: jax.Array) -> Branch:
    """The gradient of a branch whose normalised array has the gradient g.

    Args:
      of_g, of_y: float32 [C], the sums of g and of g times the centred y.
    """
    mean, var = b.statistics()
    n, rate = b.whole.size // b.whole.shape[-1], lax.rsqrt(var + EPSILON)
    gain = b.scale * rate
    slope = -gain * rate * rate * (of_y * (1 / n))
    dy = gain * g + slope * wide(b.y) - (gain * (of_g * (1 / n)) + slope * mean)
    C, channels = len(b.scale), b.whole.shape[-1]
    beside = [(0, 0)] * (dy.ndim - 1) + [(b.part * C, channels - (b.part + 1) * C)]
    whole = jnp.pad(dy.astype(b.whole.dtype), beside)
    nothing = jax.tree.map(jnp.zeros_like, b)
    return nothing.replace(whole=whole, scale=of_y * rate, bias=of_g)


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    return jnp.maximum(x, 0)


relu.defvjp(lambda x: (relu(x), x), lambda x, dz: (dz * step(x),))


def step(x: jax.Array) -> jax.Array:
    """1 above 0, else 0."""
    return jnp.sign(jnp.maximum(x, 0))


def sums(*groups: Sums, platform: str) -> Sums:
    """Of one or two arrays [..., C] in each group, over all axes but the last: `in_parts` and
    `of_all`."""
    return of_all(in_parts(*groups, platform=platform), platform)


def in_parts(*groups: Sums, platform: str) -> Sums:
    """The first half of `sums`, for a GPU a few records at a time: XLA's own cut through the rows
    of all would part this pass from what else it makes where it does not come out even.

    One pass makes two sums. XLA computes what they have in common, and would rather write and read
    it than compute it again, before it sees that. So two of a group are one of complex numbers, and
    two groups must have nothing in common but what is read: each is made of `normal` by another of
    the `factors`. (A third sum of 32 bits would take more shared memory than XLA gives a kernel.)
    """
    B, *others, C = groups[0][0].shape
    if platform != "gpu":
        axes = tuple(range(1 + len(others)))
        return tuple(jnp.sum(a, axes) for group in groups for a in group)
    # One for each 64 channels, so that the parts are as many in all stages of a network.
    devices = jax.sharding.get_abstract_mesh().size or 1
    some = math.gcd(max(C // 64, 1), B if B % devices else B // devices)
    shape = (B // some, some * math.prod(others), C)
    arrays = (lax.complex(*group) if len(group) == 2 else group[0] for group in groups)
    return tuple(lax.optimization_barrier([jnp.sum(a.reshape(shape), 1) for a in arrays]))


def of_all(found: Sums, platform: str) -> Sums:
    """The second half of `sums`: the sums [C] over the records, in one kernel."""
    if platform != "gpu":
        return found

    def add(a: Sums, b: Sums) -> Sums:
        return tuple(x + y for x, y in zip(a, b, strict=True))

    zeros = tuple(jnp.zeros((), a.dtype) for a in found)
    found = tuple(lax.optimization_barrier(lax.reduce(found, zeros, add, (0,))))
    parts = ((x.real, x.imag) if jnp.iscomplexobj(x) else (x,) for x in found)
    return tuple(itertools.chain.from_iterable(parts))


def factors(platform: str) -> tuple[float, ...]:
    """Of `normal`, for each group of sums that one pass makes."""
    return (1.0, -1.0, 2.0) if platform == "gpu" else (1.0, 1.0, 1.0)


def channels(x: jax.Array, part: int, C: int) -> jax.Array:
    """[..., n C] -> [..., C]"""
    return x if x.shape[-1] == C else lax.slice_in_dim(x, part * C, (part + 1) * C, axis=-1)


def wide(x: jax.Array) -> jax.Array:
    """In float32, or float64 where that is given."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def normal(branches: tuple[Branch, ...], residual: jax.Array | None, by: float = 1.0) -> jax.Array:
    """The sum of the normalised branches and the residual, computed as that of `by` times each; for
    powers of two the same bit for bit, and to XLA something else, see `sums`."""
    total = branches[0].normalized(by)
    for b in branches[1:]:
        total = total + b.normalized(by)
    return (total if residual is None else total + wide(residual) * by) / by
