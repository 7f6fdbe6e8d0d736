"""From what a file holds to the twelve standard leads, with limb leads that follow from others."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfds_builders.errors import RecordError
from tfds_builders.formats.found import Found, plain_name
from tfds_builders.leads import LEADS
from tfds_builders.records import known_lead, lead_columns

_FLAT = 0.99  # share of samples at one value in a lead that was not connected

_I, _II, _III, _AVR, _AVL, _AVF = range(6)


class Placed(NamedTuple):
    """Attributes:
    microvolts: float64 [T, 12], leads in the order of `LEADS`, zeros where one is missing.
    lead_mask: bool [12].
    derived: names of the leads that were computed from others.
    notes: what was left out or taken for something else, a sentence each.
    flat: names of the leads that hardly ever change.
    """

    microvolts: np.ndarray
    lead_mask: np.ndarray
    derived: tuple[str, ...]
    notes: tuple[str, ...]
    flat: tuple[str, ...]


def place(found: Found, where: Path) -> Placed:
    """Puts leads by their names into the fixed order; other signals are left out, and noted.

    A lead that hardly ever changes was not connected: it is missing. Limb leads that are missing
    follow from two of I, II and III, by Einthoven's and Goldberger's equations.

    Raises:
      RecordError: no standard lead, a lead that occurs twice, none that changes.
    """
    names = [plain_name(name) for name in found.names]
    kept = [i for i, name in enumerate(names) if known_lead(name)]
    other = [found.names[i] for i in range(len(names)) if i not in kept]
    if not kept:
        raise RecordError(f"{where}: no standard lead: it has {', '.join(other)[:200]}")
    columns = lead_columns([names[i] for i in kept], where)
    ecg = np.zeros((len(found.microvolts), len(LEADS)))
    ecg[:, columns] = found.microvolts[:, kept]
    mask = np.zeros(len(LEADS), bool)
    mask[columns] = True
    own = ecg[: found.ecg_samples or len(ecg)]
    dead = mask & ((own == np.median(own, axis=0)).mean(axis=0) > _FLAT)
    notes = list(found.notes)
    if dead.any():
        notes.append(f"flat, taken as missing: {_names(dead)}")
        mask &= ~dead
        ecg[:, dead] = 0
    if not mask.any():
        raise RecordError(f"{where}: all leads are flat")
    if other:
        notes.append(f"no standard leads, left out: {', '.join(other)[:200]}")
    if "mlii" in (name.casefold() for name in names):
        notes.append("MLII taken as II")
    derived = _derive(ecg, mask)
    if derived.any():
        notes.append(f"computed from the other limb leads: {_names(derived)}")
    names = np.array(LEADS)
    flat = tuple(names[dead].tolist())
    return Placed(ecg, mask, tuple(names[derived].tolist()), tuple(notes), flat)


def _names(which: np.ndarray) -> str:
    return ", ".join(np.array(LEADS)[which])


def _derive(ecg: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Fills in the limb leads that follow from others; which they are, bool [12]."""
    before = mask.copy()
    if mask[[_I, _II, _III]].sum() < 2:
        return np.zeros(len(LEADS), bool)
    for lead, (a, b), signs in (
        (_II, (_I, _III), (1, 1)),
        (_I, (_II, _III), (1, -1)),
        (_III, (_II, _I), (1, -1)),
        (_AVR, (_I, _II), (-0.5, -0.5)),
        (_AVL, (_I, _III), (0.5, -0.5)),
        (_AVF, (_II, _III), (0.5, 0.5)),
    ):
        if not mask[lead]:
            ecg[:, lead] = signs[0] * ecg[:, a] + signs[1] * ecg[:, b]
            mask[lead] = True
    return mask & ~before
