"""Assignment of records to prototypes, and its prediction from another view (Caron et al. 2020,
arXiv 2006.09882)."""

import jax
import jax.numpy as jnp
from jax.nn import log_softmax, logsumexp


def sinkhorn(
    scores: jax.Array, epsilon: float, iterations: int = 3, counted: jax.Array | None = None
) -> jax.Array:
    """Codes that use all prototypes alike: Q of equations 3 to 5, times the number of samples.

    The iteration scales rows and columns of exp(scores / epsilon) in turn, here in logarithms, so
    that no epsilon overflows. Under `jax.jit` it is over the samples of all devices.

    Args:
      scores: float [N, K], of N samples for K prototypes.
      epsilon: of the entropy in equation 3; the smaller, the harder the codes.
      counted: bool [N] or None; samples that are False are assigned, too, but have no say in how
        far a prototype is used.

    Returns:
      float32 [N, K] without a gradient: each sample's code has the sum 1, and each prototype's
      share of the N samples goes to 1 / K with the iterations.
    """
    where = None if counted is None else counted[:, None]

    def scale(_: int, log_q: jax.Array) -> jax.Array:
        log_q -= logsumexp(log_q, axis=0, where=where, keepdims=True)
        return log_q - logsumexp(log_q, axis=1, keepdims=True)

    return jnp.exp(jax.lax.fori_loop(0, iterations, scale, jax.lax.stop_gradient(scores) / epsilon))


def swapped_prediction(
    scores: jax.Array, codes: jax.Array, temperature: jax.Array | float
) -> jax.Array:
    """Equations 1 and 2: the cross-entropy between each view's code and what the other view gives
    for it.

    Args:
      scores: float32 [K, 2, P], of two views of each record for P prototypes.
      codes: float32 [K, 2, P], distributions. They have no gradient.
      temperature: tau.

    Returns:
      float32 scalar, the sum over the two views, each the mean over the K records.
    """
    codes = jax.lax.stop_gradient(codes[:, ::-1])
    return -jnp.sum(codes * log_softmax(scores / temperature), axis=(1, 2)).mean()
