"""The twelve standard leads: their order in every array of this project, and the nine electrodes
(the tenth is the ground) that they are differences of."""

import numpy as np

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
ELECTRODES = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")


def _leads_from_electrodes() -> np.ndarray:
    """[12, 9]: Einthoven's leads, Goldberger's, and the chest's against Wilson's terminal."""
    at = dict(zip(ELECTRODES, np.eye(len(ELECTRODES)), strict=True))
    ra, la, ll = at["RA"], at["LA"], at["LL"]
    row = {"I": la - ra, "II": ll - ra, "III": ll - la}
    row |= {"aVR": ra - (la + ll) / 2, "aVL": la - (ra + ll) / 2, "aVF": ll - (ra + la) / 2}
    row |= {name: at[name] - (ra + la + ll) / 3 for name in ELECTRODES[3:]}
    return np.stack([row[lead] for lead in LEADS])


LEADS_FROM_ELECTRODES = _leads_from_electrodes()
