"""Contrast with soft targets: how alike two records or beats are says how near they should lie.

A target t_ij in [0, 1] is what anchor i wants of j; q_i is its row divided by its sum. The loss is
the cross-entropy of q_i and the softmax of the similarities, whose least value is q_i's entropy.
With targets of 1 for the other view alone it is NT-Xent.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import logsumexp

KINDS = ("exp", "cosine", "softclt", "class", "identity")
FORMS = ("crossentropy", "weighted")
_LOW, _HIGH, _STEPS = -7.0, 7.0, 24  # of the logarithm of the sharpness, and how often it is halved


class Loss(NamedTuple):
    """value; entropy, the least that the value can be; positives, the effective number exp(H(q)) of
    positives; all means over the rows that have a positive, float32 scalars."""

    value: jax.Array
    entropy: jax.Array
    positives: jax.Array


def distance(f: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Between rows of float32 [N, F], NaN where a number is missing: the root of the mean squared
    difference over the numbers that both have, [N, N], and whether there is any, bool [N, N]."""
    there = jnp.isfinite(f).astype(jnp.float32)
    f = jnp.where(there > 0, f, 0.0)
    square = (f * f) @ there.T
    shared = there @ there.T
    total = square + square.T - 2 * f @ f.T
    return jnp.sqrt(jnp.maximum(total, 0) / jnp.maximum(shared, 1)), shared > 0


def likeness(kind: str, f: jax.Array, raw: jax.Array, group: jax.Array) -> jax.Array:
    """float32 [N, N] of one of `KINDS` but identity: what a sharpness of 1 makes of two rows, as a
    logarithm for `exp` and `cosine` (0 is alike), a distance for `softclt`, and 0 or -inf for
    `class`; -inf (inf for a distance) where nothing says.

    Args:
      f: float32 [N, F], standardised, NaN where missing.
      raw: float32 [N, R], positive numbers in their units, for `cosine`.
      group: int [N], below 0 for rows without a class.
    """
    if kind == "class":
        same = (group[:, None] == group) & (group >= 0)
        return jnp.where(same, 0.0, -jnp.inf)
    if kind == "cosine":
        there = jnp.isfinite(raw).all(axis=1)
        unit = jnp.where(there[:, None], raw, 0.0)
        unit = unit / jnp.maximum(jnp.linalg.norm(unit, axis=1, keepdims=True), 1e-9)
        cosine = jnp.clip(unit @ unit.T, 1e-6, 1.0)
        return jnp.where(there[:, None] & there, jnp.log(cosine), -jnp.inf)
    d, shared = distance(f)
    if kind == "softclt":
        return jnp.where(shared, d, jnp.inf)
    return jnp.where(shared, -d, -jnp.inf)


def targets(kind: str, like: jax.Array, sharpness: jax.Array | float) -> jax.Array:
    """[N, N] in [0, 1] of what `likeness` gives; `cosine` to the power `sharpness`."""
    if kind == "softclt":  # SoftCLT (arXiv 2312.16424), equation 3
        return 2 * jax.nn.sigmoid(-sharpness * like)
    return jnp.exp(sharpness * like) if kind != "class" else jnp.exp(like)


def of_views(t: jax.Array, valid: jax.Array) -> jax.Array:
    """Targets [2N, 2N] of both views of N things, in the order (first views, second views), of
    those of the things [N, N]: the other view of the same has 1, itself 0.

    Args:
      valid: bool [2, N], which views are there; a row or column of one that is not is 0.
    """
    N = len(t)
    t = jnp.where(jnp.eye(N, dtype=bool), 1.0, t)
    both = jnp.tile(t, (2, 2)) * (1 - jnp.eye(2 * N))
    there = valid.reshape(-1)
    return jnp.where(there[:, None] & there, both, 0.0)


def effective(t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of targets [M, M]: the rows q, their entropies [M], and which rows have a positive [M]."""
    total = t.sum(axis=1, keepdims=True)
    q = t / jnp.maximum(total, 1e-12)
    entropy = -jnp.sum(jnp.where(q > 0, q * jnp.log(jnp.maximum(q, 1e-30)), 0.0), axis=1)
    return q, entropy, total[:, 0] > 1e-12


def calibrated(kind: str, like: jax.Array, valid: jax.Array, wanted: float) -> jax.Array:
    """Targets [2N, 2N] as `of_views`, with the sharpness at which the mean effective number of
    positives is `wanted`; the nearest that the batch allows."""
    if kind in ("class", "identity"):
        return of_views(targets(kind, like, 1.0), valid)

    def at(log: jax.Array) -> jax.Array:
        return of_views(targets(kind, like, jnp.exp(log)), valid)

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        _, entropy, rows = effective(at(middle))
        count = jnp.sum(jnp.where(rows, jnp.exp(entropy), 0)) / jnp.maximum(rows.sum(), 1)
        return jnp.where(count > wanted, middle, low), jnp.where(count > wanted, high, middle)

    low, high = jax.lax.fori_loop(0, _STEPS, halve, (jnp.float32(_LOW), jnp.float32(_HIGH)))
    return at((low + high) / 2)


def contrast(z: jax.Array, t: jax.Array, temperature: float, form: str = "crossentropy") -> Loss:
    """The loss of embeddings under targets; zero where no row has a positive.

    Args:
      z: float32 [M, D], of unit length.
      t: float32 [M, M] with a diagonal of 0; a row and column of zeros is of what is not there.
      form: `crossentropy` of q, or `weighted`, SoftCLT's: the targets as they are.
    """
    t = jax.lax.stop_gradient(t)
    q, entropy, rows = effective(t)
    there = rows | (t.sum(axis=0) > 0)
    apart = there & ~jnp.eye(len(z), dtype=bool)
    logits = z @ z.T / temperature
    # A row that counts has another one that is there: the sum is never empty.
    total = logsumexp(jnp.where(apart | ~rows[:, None], logits, -jnp.inf), axis=1)
    weight = q if form == "crossentropy" else t
    value = weight.sum(axis=1) * total - jnp.sum(weight * logits, axis=1)

    def mean(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(rows, x, 0.0)) / jnp.maximum(rows.sum(), 1)

    return Loss(mean(value), mean(entropy), mean(jnp.exp(entropy)))
