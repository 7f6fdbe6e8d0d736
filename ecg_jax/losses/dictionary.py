"""Losses against keys of a slow network: a query has to find its own in a dictionary."""

import jax
import jax.numpy as jnp
from jax.nn import logsumexp


def queue_info_nce(
    q: jax.Array,
    k: jax.Array,
    queue: jax.Array,
    counted: jax.Array,
    temperature: jax.Array | float,
) -> jax.Array:
    """MoCo's loss (He et al. 2020, arXiv 1911.05722, equation 1): a record's own key against the
    keys of earlier batches.

    Args:
      q, k: float32 [K, D], of unit length; row i of both belongs to record i. k has no gradient.
      queue: float32 [Q, D], of unit length: the negatives.
      counted: bool [Q] or [K, Q]: which of them are negatives, of all records or of each.
      temperature: tau.

    Returns:
      float32 scalar, the mean over the K records; 0 of a record without negatives.
    """
    k, queue = jax.lax.stop_gradient((k, queue))
    positive = jnp.sum(q * k, axis=-1) / temperature
    negative = jnp.where(counted, q @ queue.T / temperature, -jnp.inf)
    return jnp.mean(logsumexp(jnp.column_stack([positive, negative]), axis=1) - positive)


def swapped_info_nce(q: jax.Array, k: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """MoCo v3's loss (Chen et al. 2021, arXiv 2104.02057, equation 1, made symmetric as in
    algorithm 1, whose factor 2 tau it has): each view's query against the keys of the other view of
    all records in the batch.

    Args:
      q, k: float32 [K, 2, D], of unit length: two views of each record. k has no gradient.
      temperature: tau.

    Returns:
      float32 scalar, the sum over the two views, each the mean over the K records.
    """
    logits = jnp.einsum("ivd,jvd->vij", q, jax.lax.stop_gradient(k[:, ::-1])) / temperature
    positive = jnp.diagonal(logits, axis1=1, axis2=2)
    each = logsumexp(logits, axis=2) - positive
    return 2 * temperature * jnp.mean(each, axis=1).sum()
