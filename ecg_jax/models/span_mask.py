"""Which tokens of a record are hidden in wav2vec 2.0's pre-training: spans of ten, thinned to a
fixed number.

The released code thins every row to the smallest count of the batch, so that the rate depends on
the batch's size. Here the number is fixed, as compiled programs want it; `share` .355 is what that
code comes to with 156 tokens and 128 rows.
"""

import jax
import jax.numpy as jnp

SPAN = 10  # tokens
RATE = 0.65  # of spans: about RATE * P / SPAN of them, which overlap


def spans(key: jax.Array, rows: int, P: int) -> jax.Array:
    """bool [rows, P]: the union of spans that begin anywhere, so that none runs past the end. One
    number of them for all rows, at least 2, drawn so that its mean is RATE * P / SPAN; each row's
    beginnings are drawn without replacement from 0 .. P - SPAN - 1, so the last token stays.
    """
    k_count, k_place = jax.random.split(key)
    starts = P - SPAN
    count = jnp.maximum(jnp.floor(RATE * P / SPAN + jax.random.uniform(k_count)), 2)
    u = jax.random.uniform(k_place, (rows, starts))
    place = jnp.argsort(jnp.argsort(u, axis=1), axis=1)  # of each beginning in a random order
    begins = jnp.pad(place < count, ((0, 0), (SPAN - 1, SPAN)))
    return jnp.stack([begins[:, i : i + P] for i in range(SPAN)]).any(axis=0)


def fixed(key: jax.Array, rows: int, P: int, count: int) -> jax.Array:
    """int32 [rows, count], rising: tokens of `spans`, thinned at random to `count`. A row with
    fewer is filled up with others at random."""
    k_spans, k_thin = jax.random.split(key)
    hidden = spans(k_spans, rows, P)
    order = jax.random.uniform(k_thin, (rows, P)) + jnp.where(hidden, 1.0, 0.0)
    _, chosen = jax.lax.top_k(order, count)
    return jnp.sort(chosen, axis=1)


def others(key: jax.Array, rows: int, count: int, draws: int) -> jax.Array:
    """int32 [rows, count, draws]: for each of `count` places of a row `draws` others of that row,
    with replacement, never itself."""
    drawn = jax.random.randint(key, (rows, count, draws), 0, count - 1)
    return drawn + (drawn >= jnp.arange(count)[:, None])
