"""The contrastive loss of predicting an embedding that is yet to come."""

import jax
import jax.numpy as jnp
from jax.nn import logsumexp


def predictive_nce(
    predicted: jax.Array, target: jax.Array, others: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """CPC's InfoNCE (van den Oord et al. 2018, arXiv 1807.03748, equation 4) over the global batch.

        L = -mean log exp(p_i . z_i) / (sum_j exp(p_i . z_j) + sum_n exp(others_in))

    Every prediction p_i of record i, at each of the axes S alike, is held against that record's
    target and, as negatives, all other records' at the same place in S. Nothing is normalised: the
    scale of the products is learned.

    Args:
      predicted, target: float32 [B, *S, D].
      others: float32 [B, *S, N], products of each prediction with further negatives, -inf for none.

    Returns:
      float32 scalars: the loss, a mean over B and S, and how often the target comes first.
    """
    logits = jnp.einsum("i...d,j...d->...ij", predicted, target)
    positive = jnp.diagonal(logits, axis1=-2, axis2=-1)
    if others is not None:
        logits = jnp.concatenate([logits, jnp.moveaxis(others, 0, -2)], axis=-1)
    first = positive >= jax.lax.stop_gradient(logits).max(axis=-1)
    return jnp.mean(logsumexp(logits, axis=-1) - positive), jnp.mean(first.astype(jnp.float32))
