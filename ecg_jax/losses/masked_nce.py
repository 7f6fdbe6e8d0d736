"""The losses of wav2vec 2.0 (Baevski et al. 2020, arXiv 2006.11477, equations 3 and 4), and the
contrast of adjacent segments beside it (Oh et al. 2022, arXiv 2203.06889)."""

import jax
import jax.numpy as jnp
from jax.nn import logsumexp

TAU = 0.1
EPSILON = 1e-8  # below which a length is not divided by


def masked_nce(
    context: jax.Array, target: jax.Array, codes: jax.Array, others: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Equation 3: tell a masked token's quantized vector from those of other masked tokens of its
    row. One that is made of the same codes is no negative.

    Args:
      context, target: float32 [N, M, D].
      codes: int [N, M, G], which codebook entries each target is made of.
      others: int [N, M, K], places of the negatives.

    Returns:
      float32 scalars: the mean over N and M, and how often the own target comes first.
    """
    c, q = (x / jnp.maximum(_length(x), EPSILON) for x in (context, target))
    cosine = jnp.einsum("nmd,nkd->nmk", c, q) / TAU
    same = (codes[:, :, None] == codes[:, None]).all(axis=-1)
    negative = jnp.take_along_axis(jnp.where(same, -jnp.inf, cosine), others, axis=2)
    own = jnp.diagonal(cosine, axis1=1, axis2=2)
    value = logsumexp(jnp.concatenate([own[..., None], negative], axis=2), axis=2) - own
    return value.mean(), jnp.mean(own > negative.max(axis=2))


def diversity(logits: jax.Array) -> jax.Array:
    """Equation 4 as the code has it: (G V - sum of the groups' perplexities) / (G V), of the mean
    softmax over all tokens of logits [..., G, V]."""
    G, V = logits.shape[-2:]
    p = jax.nn.softmax(logits, axis=-1).reshape(-1, G, V).mean(axis=0)
    perplexity = jnp.exp(-jnp.sum(p * jnp.log(p + 1e-7), axis=-1)).sum()
    return (G * V - perplexity) / (G * V)


def adjacent_segments(
    a: jax.Array,
    b: jax.Array,
    same: jax.Array,
    form: str = "corrected",
    group: int = 0,
) -> jax.Array:
    """CMSC, the contrast of two segments, over the global batch or groups of its rows.

    corrected: cosines / 0.1; the mean over all pairs of one patient of -log softmax over rows, and
      the same over columns, half each.
    code: so, but the lengths that vectors are divided by have no gradient.
    paper: equations 3-4, NT-Xent: among the 2N - 1 other segments, the mean over the pairs.

    Args:
      a, b: float32 [N, D]; row i of both is of record i, as they are.
      same: int [N], equal for rows that are positives of each other.
      group: rows that meet each other (parity with the code: 64); 0 for all.

    Returns:
      float32 scalar.
    """
    if group:
        parts = [x.reshape(-1, group, *x.shape[1:]) for x in (a, b, same)]
        return jax.vmap(lambda a, b, s: adjacent_segments(a, b, s, form))(*parts).mean()
    lengths = [jnp.maximum(_length(x), EPSILON) for x in (a, b)]
    if form == "code":
        lengths = jax.lax.stop_gradient(lengths)
    a, b = a / lengths[0], b / lengths[1]
    if form == "paper":
        return _nt_xent(a, b, same)
    logits = a @ b.T / TAU
    positive = (same[:, None] == same[None, :]).astype(logits.dtype)
    rows = logsumexp(logits, axis=1, keepdims=True) - logits
    columns = logsumexp(logits, axis=0, keepdims=True) - logits
    return jnp.sum(positive * (rows + columns)) / (2 * positive.sum())


def _nt_xent(a: jax.Array, b: jax.Array, same: jax.Array) -> jax.Array:
    z, label = jnp.concatenate([a, b]), jnp.concatenate([same, same])
    itself = jnp.eye(len(z), dtype=bool)
    logits = jnp.where(itself, -jnp.inf, z @ z.T / TAU)
    positive = (label[:, None] == label[None, :]) & ~itself
    terms = logsumexp(logits, axis=1, keepdims=True) - jnp.where(itself, 0, logits)
    return jnp.sum(jnp.where(positive, terms, 0)) / positive.sum()


def _length(x: jax.Array) -> jax.Array:
    """[..., 1]: Euclidean, with a finite gradient at zero."""
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    return jnp.sqrt(jnp.maximum(squared, EPSILON**2))
