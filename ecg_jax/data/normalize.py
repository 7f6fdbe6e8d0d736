"""From the records' int16 microvolts to the floats a network sees; the recipe chooses how."""

import jax
import jax.numpy as jnp

from ecg_jax.errors import UserError

KINDS = ("millivolt", "record", "lead")


def check(kind: str) -> None:
    if kind not in KINDS:
        raise UserError(f"unknown normalisation {kind!r}: there are {', '.join(KINDS)}")


def normalize(ecg: jax.Array, lead_mask: jax.Array, kind: str) -> jax.Array:
    """int16 microvolts [B, T, 12] -> float32 [B, T, 12]; leads that are not there, and what fills a
    record that is shorter, stay zero.

    Args:
      lead_mask: bool [B, 12].
      kind: "millivolt" keeps absolute voltage (hypertrophy is read from it); "record" and
        "lead" subtract the mean and divide by the standard deviation, over the record's leads
        together or over each lead by itself, up to the record's end: see `own_samples`.
    """
    check(kind)
    x = ecg.astype(jnp.float32) / 1000
    if kind == "millivolt":
        return x
    there = lead_mask[:, None, :] & own_samples(ecg)[..., None]
    axes = 1 if kind == "lead" else (1, 2)
    n = jnp.maximum(there.sum(axis=axes, keepdims=True), 1)
    mean = jnp.where(there, x, 0).sum(axis=axes, keepdims=True) / n
    var = jnp.where(there, (x - mean) ** 2, 0).sum(axis=axes, keepdims=True) / n
    return jnp.where(there, (x - mean) * jax.lax.rsqrt(var + 1e-6), 0)


def own_samples(ecg: jax.Array) -> jax.Array:
    """bool [B, T]: up to a record's end, after which all leads of int16 [B, T, 12] are zero."""
    anything = (ecg != 0).any(axis=2)
    return jnp.flip(jax.lax.cummax(jnp.flip(anything.astype(jnp.int8), 1), axis=1), 1) > 0
