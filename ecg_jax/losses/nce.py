"""Noise-contrastive estimation against a memory bank (PIRL, Misra and van der Maaten 2020, arXiv
1912.01991)."""

import jax
import jax.numpy as jnp
from jax.nn import log_softmax, logsumexp


def memory_nce(
    query: jax.Array, positive: jax.Array, negatives: jax.Array, temperature: jax.Array | float
) -> jax.Array:
    """PIRL's equation 4, the mean over the batch of

        L_NCE = -log h(m_I, q) - sum over I' of log(1 - h(m_I', q))

    with h of equation 3: a softmax over the positive and the N negatives. The paper writes h for a
    pair only; here the denominator of a negative's h is that of its positive.

    Args:
      query: float32 [B, D]; positive: [B, D]; negatives: [B, N, D]; all of unit length.
      temperature: tau.

    Returns:
      float32 scalar.
    """
    own = jnp.sum(query * positive, axis=-1, keepdims=True)
    others = jnp.einsum("bd,bnd->bn", query, negatives)
    logits = jnp.concatenate([own, others], axis=1) / temperature
    agrees = log_softmax(logits, axis=1)[:, 0]
    return -jnp.mean(agrees + log_one_minus_softmax(logits)[:, 1:].sum(axis=1))


def log_one_minus_softmax(logits: jax.Array) -> jax.Array:
    """log(1 - softmax) along the last axis, finite where one probability rounds to 1: that of the
    likeliest is the share of all others."""
    top = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1], dtype=bool)
    rest = logsumexp(jnp.where(top, -jnp.inf, logits), axis=-1, keepdims=True)
    rest -= logsumexp(logits, axis=-1, keepdims=True)
    p = jnp.where(top, 0, jax.nn.softmax(logits, axis=-1))
    return jnp.where(top, rest, jnp.log1p(-p))
