"""Contrastive losses between two sets of embeddings of the same records."""

import jax
import jax.numpy as jnp
from jax.nn import logsumexp


def symmetric_info_nce(
    e: jax.Array, t: jax.Array, temperature: jax.Array | float, group: jax.Array | None = None
) -> jax.Array:
    """ETP equations 3-5, METS equations 2-4: symmetric InfoNCE over the global batch.

        L = 1/2K sum_i [ -log softmax_j(e_i . t_j / tau)_i - log softmax_j(t_i . e_j / tau)_i ]

    Under `jax.jit` with the batch sharded over the mesh, `e @ t.T` gathers the other side's
    embeddings, so every record meets all K texts of the global batch.

    Args:
      e, t: float32 [K, D], of unit length; row i of both belongs to record i.
      temperature: tau.
      group: int [K] or None. Records of one group (the same report, word for word) are all
        positives of each other: the target is spread evenly over the group's members, instead
        of calling a record's own report a negative because a neighbour has it too. None is the
        papers' loss.

    Returns:
      float32 scalar.
    """
    logits = (e @ t.T) / temperature
    if group is None:
        positive = jnp.sum(e * t, axis=-1) / temperature
        to_text = logsumexp(logits, axis=1) - positive
        to_ecg = logsumexp(logits, axis=0) - positive
    else:
        same = (group[:, None] == group[None, :]).astype(logits.dtype)
        target = same / same.sum(axis=1, keepdims=True)
        positive = jnp.sum(target * logits, axis=1)
        to_text = logsumexp(logits, axis=1) - positive
        to_ecg = logsumexp(logits, axis=0) - jnp.sum(target * logits, axis=0)
    return 0.5 * jnp.mean(to_text + to_ecg)
