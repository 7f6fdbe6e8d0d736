"""The contrastive losses with their communication written out, for batches sharded over the mesh.

`gathered`: every device meets its ECGs with all texts. `ring`: the texts go round the devices, and
a device meets its ECGs with one device's texts at a time, forgets the similarities, and computes
them again for the gradient; so memory does not grow with the square of the global batch.

A letter k stands for a device's K / n records. `kin` holds `group` [K] or [K, F] and `patient` [K],
which with `softness` are as in `losses.contrastive`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import log_sigmoid, logsumexp
from jax.sharding import PartitionSpec as P

from ecg_jax.runtime.parallel import AXIS

FORMS = ("gathered", "ring")
FAR = -1e9  # a similarity that no exponential sees; finite, as rows of nothing else have gradients
ALIKE = 0.999  # reports of more than this kinship are one report, up to rounding
PARTS = 4  # of a visit: a device holds k x k / PARTS similarities at a time
Tree = Any


class Kin(NamedTuple):
    """Of the records of a batch, what makes them positives of each other, or spares them."""

    group: jax.Array
    patient: jax.Array | None = None


def symmetric_info_nce(
    e: jax.Array,
    t: jax.Array,
    temperature: jax.Array | float,
    kin: Kin,
    form: str,
    softness: float,
) -> jax.Array:
    """`losses.contrastive.symmetric_info_nce`, on the mesh of `jax.set_mesh`."""
    local = {"gathered": _info_nce_gathered, "ring": _info_nce_ring}[form]
    return _over_mesh(local, (e, t, kin), (temperature, softness)) / (2 * len(e))


def sigmoid(
    e: jax.Array,
    t: jax.Array,
    temperature: jax.Array | float,
    bias: jax.Array | float,
    kin: Kin,
    form: str,
) -> jax.Array:
    """`losses.contrastive.sigmoid`, on the mesh of `jax.set_mesh`."""
    local = {"gathered": _sigmoid_gathered, "ring": _sigmoid_ring}[form]
    return _over_mesh(local, (e, t, kin), (temperature, bias)) / len(e)


def _over_mesh(local: Callable, records: tuple, scalars: tuple) -> jax.Array:
    """`local(*records, *scalars)` on every device's own records."""
    specs = (P(AXIS),) * len(records) + (P(),) * len(scalars)
    scalars = tuple(jnp.asarray(s, jnp.float32) for s in scalars)
    return jax.shard_map(local, in_specs=specs, out_specs=P())(*records, *scalars)


def same(a: jax.Array, b: jax.Array) -> jax.Array:
    """bool [A, B]: which records are of one group."""
    return a[:, None] == b[None, :]


def kinship(a: Kin, b: Kin, softness: jax.Array | float) -> tuple[jax.Array, jax.Array | None]:
    """float32 [A, B]: how much of a positive a record is for another, 1 for itself; and bool
    [A, B], the pairs that are spared: of one patient, and not of one report."""
    if a.group.ndim == 1:
        weight = same(a.group, b.group).astype(jnp.float32)
    else:
        cosine = jnp.matmul(a.group, b.group.T, precision=jax.lax.Precision.HIGHEST)
        weight = jnp.exp((jnp.minimum(cosine, 1) - 1) / softness)
    if a.patient is None or b.patient is None:
        return weight, None
    spared = same(a.patient, b.patient) & (weight < ALIKE)
    return jnp.where(spared, 0.0, weight), spared


def met(logits: jax.Array, spared: jax.Array | None) -> jax.Array:
    """The similarities that a softmax is over."""
    return logits if spared is None else jnp.where(spared, FAR, logits)


def _gather(x: Tree) -> Tree:
    return jax.tree.map(lambda x: jax.lax.all_gather(x, AXIS, tiled=True), x)


def _info_nce_gathered(
    e: jax.Array, t: jax.Array, kin: Kin, tau: jax.Array, softness: jax.Array
) -> jax.Array:
    logits_kxK = e @ _gather(t).T / tau
    weight, spared = kinship(kin, _gather(kin), softness)
    met_kxK = met(logits_kxK, spared)
    rows = logsumexp(met_kxK, axis=1)
    # A column lies on all devices: its logsumexp is put together from their parts.
    top = jax.lax.pmax(jax.lax.stop_gradient(met_kxK.max(axis=0)), AXIS)
    columns = top + jnp.log(jax.lax.psum(jnp.exp(met_kxK - top).sum(axis=0), AXIS))
    members = weight.sum(axis=1)  # of a row and, as kinship is mutual, of its column
    share = weight / members[:, None] + weight / _gather(members)[None, :]
    positive = (share * logits_kxK).sum(axis=1)
    return jax.lax.psum((rows - positive).sum(), AXIS) + columns.sum()


def _info_nce_ring(
    e: jax.Array, t: jax.Array, kin: Kin, tau: jax.Array, softness: jax.Array
) -> jax.Array:
    nothing = jax.lax.pcast(jnp.zeros(len(e)), AXIS, to="varying")

    def meet(own: tuple, visitor: tuple) -> tuple[tuple, tuple]:
        rows, positive, members = own
        t, kin_t, columns, positive_t = visitor
        logits_kxk = e @ t.T / tau
        weight, spared = kinship(kin, kin_t, softness)
        met_kxk = met(logits_kxk, spared)
        own = (
            jnp.logaddexp(rows, logsumexp(met_kxk, axis=1)),
            positive + (weight * logits_kxk).sum(axis=1),
            members + weight.sum(axis=1),
        )
        # The texts carry their own sums along, and are home with them after n moves.
        columns = jnp.logaddexp(columns, logsumexp(met_kxk, axis=0))
        return own, (t, kin_t, columns, positive_t + (weight * logits_kxk).sum(axis=0))

    start = (nothing - jnp.inf, nothing, nothing)
    texts = (t, kin, nothing - jnp.inf, nothing)
    (rows, positive, members), (_, _, columns, positive_t) = _round(meet, start, texts)
    # Kinship is mutual, so a text's members are its ECG's.
    return jax.lax.psum((rows + columns - (positive + positive_t) / members).sum(), AXIS)


def _sigmoid_gathered(
    e: jax.Array, t: jax.Array, kin: Kin, tau: jax.Array, bias: jax.Array
) -> jax.Array:
    return jax.lax.psum(sigmoid_sum(e, _gather(t), kin, _gather(kin), tau, bias), AXIS)


def _sigmoid_ring(
    e: jax.Array, t: jax.Array, kin: Kin, tau: jax.Array, bias: jax.Array
) -> jax.Array:
    def meet(total: jax.Array, visitor: tuple) -> tuple[jax.Array, tuple]:
        t, kin_t = visitor
        return total + sigmoid_sum(e, t, kin, kin_t, tau, bias), visitor

    start = jax.lax.pcast(jnp.float32(0), AXIS, to="varying")
    return jax.lax.psum(_round(meet, start, (t, kin))[0], AXIS)


def sigmoid_sum(
    e: jax.Array,
    t: jax.Array,
    kin: Kin,
    kin_t: Kin,
    tau: jax.Array | float,
    bias: jax.Array | float,
) -> jax.Array:
    """Over all pairs of the ECGs e and the texts t, but for those that are spared."""
    positive = same(kin.group, kin_t.group)
    losses = -log_sigmoid(jnp.where(positive, 1.0, -1.0) * (e @ t.T / tau + bias))
    if kin.patient is not None and kin_t.patient is not None:
        losses = jnp.where(same(kin.patient, kin_t.patient) & ~positive, 0.0, losses)
    return losses.sum()


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
