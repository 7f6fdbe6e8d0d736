"""The views of 3KG (Gopal et al. 2021, arXiv 2106.04452): the heart's vector turned and stretched,
and back to the leads; then a stretch of each lead erased. Times stay, so beats are where they were.
"""

import jax
import jax.numpy as jnp

from ecg_jax.data.bounds import within
from ecg_jax.data.vcg import EIGHT, LEADS_FROM_VCG, VCG_FROM_LEADS


def check(degrees: float, scale: float, erased: float) -> None:
    """Raises a UserError for values that no view can have."""
    within("degrees", degrees, 0, 180)
    within("scale", scale, 1)
    within("erased", erased, 0, 1)


def turn(
    key: jax.Array, ecg: jax.Array, lead_mask: jax.Array, degrees: float, scale: float
) -> jax.Array:
    """The vector of each record turned about Z, Y and X by up to `degrees` either way, each axis
    stretched by 1 to `scale`, as the leads see it.

    What no vector explains is lost, as in the paper: with 0 degrees and a scale of 1 this is the
    projection onto what a dipole gives. Records that lack one of I, II, V1-V6 stay as they are.

    Args:
      ecg: float32 [B, T, 12], all leads in one unit.
      lead_mask: bool [B, 12].
    """
    angle, size = jax.random.split(key)
    most, B = jnp.deg2rad(degrees), len(ecg)
    angles = jax.random.uniform(angle, (B, 3), minval=-most, maxval=most)
    gain = jax.random.uniform(size, (B, 1, 3), minval=1.0, maxval=scale)
    matrix = jnp.einsum(
        *("cx,bxy,yd->bcd", VCG_FROM_LEADS.T.astype("float32"), _euler(angles) * gain),
        LEADS_FROM_VCG.T.astype("float32"),
        precision="highest",
    )
    turned = jnp.matmul(ecg, matrix, precision="highest")
    whole = lead_mask[:, EIGHT].all(axis=1)[:, None, None]
    return jnp.where(whole, jnp.where(lead_mask[:, None], turned, 0), ecg)


def _euler(angles: jax.Array) -> jax.Array:
    """[B, 3] radians about Z, Y, X, in this order, to matrices [B, 3, 3] for row vectors."""
    (z, y, x), unit = angles.T, jnp.eye(3)
    return _about(2, z, unit) @ _about(1, y, unit) @ _about(0, x, unit)


def _about(axis: int, angle: jax.Array, unit: jax.Array) -> jax.Array:
    a, b = (axis + 1) % 3, (axis + 2) % 3
    still = unit[axis][:, None] * unit[axis]
    flat = unit - still
    quarter = unit[a][:, None] * unit[b] - unit[b][:, None] * unit[a]
    cos, sin = jnp.cos(angle)[:, None, None], jnp.sin(angle)[:, None, None]
    return still + cos * flat + sin * quarter


def erase(key: jax.Array, ecg: jax.Array, share: float) -> jax.Array:
    """Zeroes a stretch of `share` of the record in each lead [B, T, 12], from a place of its own;
    what would go beyond the end goes on at the beginning."""
    B, T, C = ecg.shape
    start = jax.random.randint(key, (B, 1, C), 0, T)
    hidden = (jnp.arange(T)[:, None] - start) % T < round(share * T)
    return jnp.where(hidden, 0, ecg)
