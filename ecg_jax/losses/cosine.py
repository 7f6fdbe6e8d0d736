"""Where one view of a record predicts the other, without negatives."""

import jax
import jax.numpy as jnp


def swapped_cosine(p: jax.Array, z: jax.Array) -> jax.Array:
    """The cosine of each view's prediction with the other view's projection: what SimSiam (Chen and
    He 2021, arXiv 2011.10566, equations 1 and 4) and BYOL (Grill et al. 2020, arXiv 2006.07733,
    equation 2) make large.

    Args:
      p, z: float32 [K, 2, ..., D], of unit length: predictions and projections of two views of
        each record. z has no gradient.

    Returns:
      float32 scalar, the mean over all of the 2 K views.
    """
    z = jax.lax.stop_gradient(z)
    return jnp.mean(jnp.sum(p * z[:, ::-1], axis=-1))
