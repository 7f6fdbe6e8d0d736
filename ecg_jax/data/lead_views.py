"""Views of a record that differ in the leads that they show."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ecg_jax.data.augment import Augmentation
from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError


def masks(groups: Sequence[Sequence[str] | str]) -> np.ndarray:
    """bool [G, 12]: the leads of each group of names; a name alone is a group of one.

    Raises:
      UserError: a group without leads, or a name that is no lead's.
    """
    named = [(group,) if isinstance(group, str) else tuple(group) for group in groups]
    if not all(named):
        raise UserError("a lead group is empty: name its leads, or leave the group out")
    if unknown := [name for group in named for name in group if name not in LEADS]:
        raise UserError(f"no lead {unknown[0]!r} for a lead group: there are {', '.join(LEADS)}")
    return np.array([[lead in group for lead in LEADS] for group in named]).reshape(-1, len(LEADS))


def check_whole(chain: Sequence[Mapping[str, Any]]) -> None:
    """Raises a UserError if augmentations hide leads, which views of few leads would be empty
    of."""
    if any(step["name"] == "lead_mask" for step in chain):
        raise UserError(
            "the augmentation lead_mask may hide every lead of a view that shows few: leave it out "
            "of --config.augment"
        )


def show(
    augmentation: Augmentation,
    key: jax.Array,
    ecg: jax.Array,
    lead_mask: jax.Array,
    shown: jax.Array | np.ndarray,
) -> jax.Array:
    """Each view augmented by itself, then all leads zeroed that it does not show.

    With one draw for all views, where a mask lies or how strong the noise is would tell which of
    them belong together.

    Args:
      ecg: float [B, V, T, 12].
      lead_mask: bool [B, 12].
      shown: bool [V, 12].

    Returns:
      float [B, V, T', 12]; T' is T, or what a `crop` leaves of it.
    """
    B, V, T, C = ecg.shape
    flat, _ = augmentation(key, ecg.reshape(B * V, T, C), jnp.repeat(lead_mask, V, axis=0))
    return jnp.where(jnp.asarray(shown)[:, None, :], flat.reshape(B, V, *flat.shape[1:]), 0)


def apart(ecg: jax.Array, shown: np.ndarray) -> jax.Array:
    """Each group of leads by itself: [B, T, 12] and bool [G, 12] -> [B, G, T, 12], zero where a
    group does not show a lead."""
    return jnp.where(jnp.asarray(shown)[:, None, :], ecg[:, None], 0)
