"""The contrastive losses with their communication written out, for batches sharded over the mesh.

`gathered`: every device meets its ECGs with all texts. `ring`: the texts go round the devices, and
a device meets its ECGs with one device's texts at a time, forgets the similarities, and computes
them again for the gradient; so memory does not grow with the square of the global batch.

A letter k stands for a device's K / n records. `group` [K] or [K, F] and `softness` are as in
`losses.contrastive`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, logsumexp
from jax.sharding import PartitionSpec as P

from ecg_jax.runtime.parallel import AXIS

FORMS = ("gathered", "ring")
PARTS = 4  # of a visit: a device holds k x k / PARTS similarities at a time
Tree = Any


def symmetric_info_nce(
    e: jax.Array,
    t: jax.Array,
    temperature: jax.Array | float,
    group: jax.Array,
    form: str,
    softness: float,
) -> jax.Array:
    """`losses.contrastive.symmetric_info_nce`, on the mesh of `jax.set_mesh`."""
    local = {"gathered": _info_nce_gathered, "ring": _info_nce_ring}[form]
    return _over_mesh(local, (e, t, group), (temperature, softness)) / (2 * len(e))


def sigmoid(
    e: jax.Array,
    t: jax.Array,
    temperature: jax.Array | float,
    bias: jax.Array | float,
    group: jax.Array,
    form: str,
) -> jax.Array:
    """`losses.contrastive.sigmoid`, on the mesh of `jax.set_mesh`."""
    local = {"gathered": _sigmoid_gathered, "ring": _sigmoid_ring}[form]
    return _over_mesh(local, (e, t, group), (temperature, bias)) / len(e)


def _over_mesh(local: Callable, records: tuple, scalars: tuple) -> jax.Array:
    """`local(*records, *scalars)` on every device's own records."""
    specs = (P(AXIS),) * len(records) + (P(),) * len(scalars)
    scalars = tuple(jnp.asarray(s, jnp.float32) for s in scalars)
    return jax.shard_map(local, in_specs=specs, out_specs=P())(*records, *scalars)


def same(a: jax.Array, b: jax.Array) -> jax.Array:
    """bool [A, B]: which records are of one group."""
    return a[:, None] == b[None, :]


def kinship(a: jax.Array, b: jax.Array, softness: jax.Array | float) -> jax.Array:
    """float32 [A, B]: how much of a positive a record is for another, 1 for itself."""
    if a.ndim == 1:
        return same(a, b).astype(jnp.float32)
    cosine = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.exp((jnp.minimum(cosine, 1) - 1) / softness)


def _gather(x: jax.Array) -> jax.Array:
    return jax.lax.all_gather(x, AXIS, tiled=True)


def _info_nce_gathered(
    e: jax.Array, t: jax.Array, group: jax.Array, tau: jax.Array, softness: jax.Array
) -> jax.Array:
    logits_kxK = e @ _gather(t).T / tau
    rows = logsumexp(logits_kxK, axis=1)
    # A column lies on all devices: its logsumexp is put together from their parts.
    top = jax.lax.pmax(jax.lax.stop_gradient(logits_kxK.max(axis=0)), AXIS)
    columns = top + jnp.log(jax.lax.psum(jnp.exp(logits_kxK - top).sum(axis=0), AXIS))
    weight = kinship(group, _gather(group), softness)
    members = weight.sum(axis=1)  # of a row and, as kinship is mutual, of its column
    share = weight / members[:, None] + weight / _gather(members)[None, :]
    positive = (share * logits_kxK).sum(axis=1)
    return jax.lax.psum((rows - positive).sum(), AXIS) + columns.sum()


def _info_nce_ring(
    e: jax.Array, t: jax.Array, group: jax.Array, tau: jax.Array, softness: jax.Array
) -> jax.Array:
    nothing = jax.lax.pcast(jnp.zeros(len(e)), AXIS, to="varying")

    def meet(own: tuple, visitor: tuple) -> tuple[tuple, tuple]:
        rows, positive, members = own
        t, group_t, columns, positive_t = visitor
        logits_kxk = e @ t.T / tau
        weight = kinship(group, group_t, softness)
        own = (
            jnp.logaddexp(rows, logsumexp(logits_kxk, axis=1)),
            positive + (weight * logits_kxk).sum(axis=1),
            members + weight.sum(axis=1),
        )
        # The texts carry their own sums along, and are home with them after n moves.
        columns = jnp.logaddexp(columns, logsumexp(logits_kxk, axis=0))
        return own, (t, group_t, columns, positive_t + (weight * logits_kxk).sum(axis=0))

    start = (nothing - jnp.inf, nothing, nothing)
    texts = (t, group, nothing - jnp.inf, nothing)
    (rows, positive, members), (_, _, columns, positive_t) = _round(meet, start, texts)
    # Kinship is mutual, so a text's members are its ECG's.
    return jax.lax.psum((rows + columns - (positive + positive_t) / members).sum(), AXIS)


def _sigmoid_gathered(
    e: jax.Array, t: jax.Array, group: jax.Array, tau: jax.Array, bias: jax.Array
) -> jax.Array:
    return jax.lax.psum(_sigmoid_sum(e, _gather(t), same(group, _gather(group)), tau, bias), AXIS)


def _sigmoid_ring(
    e: jax.Array, t: jax.Array, group: jax.Array, tau: jax.Array, bias: jax.Array
) -> jax.Array:
    def meet(total: jax.Array, visitor: tuple) -> tuple[jax.Array, tuple]:
        t, group_t = visitor
        return total + _sigmoid_sum(e, t, same(group, group_t), tau, bias), visitor

    start = jax.lax.pcast(jnp.float32(0), AXIS, to="varying")
    return jax.lax.psum(_round(meet, start, (t, group))[0], AXIS)


def _sigmoid_sum(
    e: jax.Array, t: jax.Array, positive: jax.Array, tau: jax.Array, bias: jax.Array
) -> jax.Array:
    sign = jnp.where(positive, 1.0, -1.0)
    return -log_sigmoid(sign * (e @ t.T / tau + bias)).sum()


def _round(meet: Callable, own: Tree, visitor: Tree) -> tuple[Tree, Tree]:
    """`own, visitor = meet(own, visitor)` with every device's visitors in turn, own first."""
    n, k = jax.lax.axis_size(AXIS), len(jax.tree.leaves(visitor)[0])
    parts = PARTS if k % PARTS == 0 else 1
    neighbour = [(i, (i + 1) % n) for i in range(n)]
    forgetful = functools.partial(jax.checkpoint, prevent_cse=False)

    @forgetful
    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        own, visitors = jax.lax.scan(forgetful(meet), *carry)
        return (own, jax.lax.ppermute(visitors, AXIS, neighbour)), None

    split = jax.tree.map(lambda x: x.reshape(parts, k // parts, *x.shape[1:]), visitor)
    (own, split), _ = jax.lax.scan(step, (own, split), length=n)
    return own, jax.tree.map(lambda x: x.reshape(k, *x.shape[2:]), split)
