"""The twelve standard leads: their order in every array of this project."""

import numpy as np

from ecg_jax.errors import UserError

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


def lead_mask(names: list[str] | tuple[str, ...] | str) -> np.ndarray:
    """bool [12], true at the leads in `names` (a sequence, or one comma-separated string).

    Raises:
      UserError: a name is not one of the twelve.
    """
    names = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
    by_name = {lead.lower(): i for i, lead in enumerate(LEADS)}
    mask = np.zeros(len(LEADS), bool)
    for name in names:
        if name.lower() not in by_name:
            raise UserError(f"unknown lead {name!r}: the leads are {', '.join(LEADS)}")
        mask[by_name[name.lower()]] = True
    return mask
