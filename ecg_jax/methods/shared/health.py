"""Whether embeddings still tell records apart: figures that fall when a network collapses."""

import jax
import jax.numpy as jnp
import numpy as np

from ecg_jax.runtime import parallel

# An effective rank of the embeddings of a whole split below this is called a collapse. One to
# a point has 0, one to a line about 1 to 2. Of PTB-XL's fold 9 the methods here have 15 to 67;
# ASTCL at too high a rate came down to 3 to 5 while its nearest neighbours got worse
# (docs/results.md).
LEAST_RANK = 5.0


def of_pairs(a: jax.Array, b: jax.Array) -> dict[str, jax.Array]:
    """Figures of a batch in training.

    Args:
      a, b: float32 [K, D], of unit length; row i of both is of record i.

    Returns:
      scalars: `positive_cosine` and `negative_cosine`, the means over the pairs of one record and
      of two; `alignment`, the mean squared distance of the former, and `uniformity`, the logarithm
      of the mean of exp(-2 d^2) over distances d between two records (Wang and Isola 2020, arXiv
      2005.10242, section 4.1); `embedding_std`, the mean over the dimensions of their standard
      deviation times sqrt(D), 1 for directions spread evenly (Chen and He 2021, section 4.1).
    """
    a, b = jax.lax.stop_gradient((a, b))
    K, D = a.shape
    between, within = a @ parallel.whole(b).T, a @ parallel.whole(a).T
    others = ~jnp.eye(K, dtype=bool)
    positive = jnp.mean(jnp.sum(a * b, axis=1))
    spread = jnp.mean(jnp.exp(4 * within - 4), where=others)  # of unit vectors d^2 is 2 - 2 cos
    return {
        "positive_cosine": positive,
        "negative_cosine": jnp.mean(between, where=others),
        "alignment": 2 - 2 * positive,
        "uniformity": jnp.log(spread),
        "embedding_std": jnp.std(a, axis=0).mean() * jnp.sqrt(D),
    }


def effective_rank(x: np.ndarray) -> float:
    """exp of the entropy of the centred features' singular values, divided by their sum (Roy and
    Vetterli 2007): between 1 and D for float [N, D]; 0 if all rows are equal."""
    x = np.asarray(x, np.float64)
    singular = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    if singular[0] <= 1e-6 * np.abs(x).max():
        return 0.0
    share = singular[singular > 0] / singular.sum()
    return float(np.exp(-np.sum(share * np.log(share))))
