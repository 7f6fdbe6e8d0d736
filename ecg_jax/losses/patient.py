"""The patient-specific contrastive loss of CLOCS (Kiyasseh et al. 2021, arXiv 2005.13249)."""

import jax
import jax.numpy as jnp


def patient_contrast(
    a: jax.Array, b: jax.Array, patient: jax.Array, temperature: jax.Array | float
) -> jax.Array:
    """Equations 1-3 for one pair of views, over the global batch.

        L_diag(a, b) = -mean_i log softmax_l(a_i . b_l / tau)_i                        (2)
        L_off(a, b) = -mean over i != j of one patient of log softmax_l(a_i . b_l / tau)_j   (3)

    Args:
      a, b: float32 [K, D], of unit length; row i of both is a view of record i.
      patient: int [K], equal for records of one patient.
      temperature: tau.

    Returns:
      float32 scalar, the mean of the terms that there are: L_diag in both directions and, if a
      patient has two records in the batch, L_off in both (1).
    """
    logits = a @ b.T / temperature
    log_p = jax.nn.log_softmax(logits, axis=1) + jax.nn.log_softmax(logits, axis=0)
    other = (patient[:, None] == patient[None, :]) & ~jnp.eye(len(a), dtype=bool)
    diagonal = -jnp.mean(jnp.diagonal(log_p))
    off = -jnp.sum(jnp.where(other, log_p, 0)) / jnp.maximum(other.sum(), 1)
    return (diagonal + off) / jnp.where(other.any(), 4, 2)
