"""From the twelve leads to the heart's vector and back: Frank's X (to the left), Y (to the feet)
and Z (to the back).

The vector explains most of a twelve-lead ECG, not all of it: chest electrodes also see what is near
them.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ecg_jax.data.leads import LEADS

INDEPENDENT = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")

# Dower, Machado, Osborne 1980 (Clin Cardiol 3:87-95): the lead that a unit vector on X, Y, Z gives.
_DOWER = np.array(
    [
        [0.632, -0.235, 0.059],  # I
        [0.235, 1.066, -0.132],  # II
        [-0.515, 0.157, -0.917],  # V1
        [0.044, 0.164, -1.387],  # V2
        [0.882, 0.098, -1.277],  # V3
        [1.213, 0.127, -0.601],  # V4
        [1.125, 0.127, -0.086],  # V5
        [0.831, 0.076, 0.230],  # V6
    ]
)


def _twelve_from_eight() -> np.ndarray:
    """[12, 8]: Einthoven's III = II - I, and Goldberger's aVR, aVL and aVF from I and II."""
    row = dict(zip(INDEPENDENT, np.eye(8), strict=True))
    one, two = row["I"], row["II"]
    row |= {"III": two - one, "aVR": -(one + two) / 2}
    row |= {"aVL": one - two / 2, "aVF": two - one / 2}
    return np.stack([row[lead] for lead in LEADS])


TWELVE_FROM_EIGHT = _twelve_from_eight()
EIGHT = np.array([LEADS.index(lead) for lead in INDEPENDENT])

# [12, 3], mV per mV, leads in the order of `LEADS`.
LEADS_FROM_VCG = TWELVE_FROM_EIGHT @ _DOWER

# [3, 12]: the inverse Dower matrix (Edenbrandt, Pahlm 1988, J Electrocardiol 21:361-367), which is
# the least-squares inverse over the eight independent leads; the other four weigh nothing.
VCG_FROM_LEADS = np.zeros((3, len(LEADS)))
VCG_FROM_LEADS[:, EIGHT] = np.linalg.pinv(_DOWER)


def rotations(key: jax.Array, B: int, most: float | jax.Array) -> jax.Array:
    """Rotations float32 [B, 3, 3] by up to `most` radians about axes uniform on the sphere; the
    rows are where the unit vectors go (Rodrigues' formula)."""
    direction, size = jax.random.split(key)
    axis = jax.random.normal(direction, (B, 1, 3))
    axis /= jnp.linalg.norm(axis, axis=2, keepdims=True)
    angle = jax.random.uniform(size, (B, 1, 1), maxval=most)
    unit = jnp.eye(3)
    along = axis * axis.swapaxes(1, 2)
    return (
        jnp.cos(angle) * unit
        + jnp.sin(angle) * jnp.cross(axis, unit)
        + (1 - jnp.cos(angle)) * along
    )
