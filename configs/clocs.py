"""CLOCS (Kiyasseh et al. 2021) on PTB-XL, with the optimisation of all methods here.

    python -m ecg_jax.train --config configs/clocs.py --workdir runs/clocs
    python -m ecg_jax.train --config configs/clocs.py --workdir runs/cmlc --config.model.kind=cmlc
    python -m ecg_jax.train --config configs/clocs.py:demo --workdir runs/clocs_demo

Results: docs/reproducing.md.
"""

from ml_collections import ConfigDict

from configs import common
from ecg_jax.data.leads import LEADS


def get_config(arg: str | None = None) -> ConfigDict:
    c = common.self_supervised(common.parse_arg(arg), "clocs")
    c.model.kind = "cmsc"  # or cmlc, cmsmlc
    c.model.leads = LEADS  # that cmlc and cmsmlc draw from
    c.model.leads_per_step = 3  # of them, as each costs an encoder pass (of cmsmlc: two halves)
    # A view of one lead has none to lose. CMSC's have all, and lose none either: one chain for all.
    c.augment = tuple(step for step in common.WHOLE if step["name"] != "lead_mask")
    return c
