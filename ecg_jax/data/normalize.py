"""From the records' int16 microvolts to the floats a network sees; the recipe chooses how."""

import jax
import jax.numpy as jnp

from ecg_jax.errors import UserError

KINDS = ("millivolt", "record", "lead")


def check(kind: str) -> None:
    if kind not in KINDS:
        raise UserError(f"unknown normalisation {kind!r}: there are {', '.join(KINDS)}")


def normalize(ecg: jax.Array, lead_mask: jax.Array, kind: str) -> jax.Array:
    """int16 microvolts [B, T, 12] -> float32 [B, T, 12]; leads that are not there stay zero.

    Args:
      lead_mask: bool [B, 12].
      kind: "millivolt" keeps absolute voltage (hypertrophy is read from it); "record" and
        "lead" subtract the mean and divide by the standard deviation, over the record's leads
        together or over each lead by itself.
    """
    check(kind)
    x = ecg.astype(jnp.float32) / 1000
    if kind == "millivolt":
        return x
    there = lead_mask[:, None, :]
    if kind == "lead":
        mean = x.mean(axis=1, keepdims=True)
        var = x.var(axis=1, keepdims=True)
    else:
        n = jnp.maximum(there.sum(axis=2, keepdims=True) * x.shape[1], 1)
        mean = jnp.where(there, x, 0).sum(axis=(1, 2), keepdims=True) / n
        var = jnp.where(there, (x - mean) ** 2, 0).sum(axis=(1, 2), keepdims=True) / n
    return jnp.where(there, (x - mean) * jax.lax.rsqrt(var + 1e-6), 0)
