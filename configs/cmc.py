"""CMC (Tian et al. 2020) on PTB-XL, with the optimisation of all methods here.

    python -m ecg_jax.train --config configs/cmc.py --workdir runs/cmc
    python -m ecg_jax.train --config configs/cmc.py --workdir runs/core --config.model.graph=core
    python -m ecg_jax.train --config configs/cmc.py:demo --workdir runs/cmc_demo

Results: docs/reproducing.md.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    c = common.self_supervised(common.parse_arg(arg), "cmc")
    c.model.groups = (  # the first is the core view
        ("I", "II", "III", "aVR", "aVL", "aVF"),
        ("V1", "V2", "V3"),
        ("V4", "V5", "V6"),
    )
    c.model.graph = "full"  # all pairs of groups; or core: those with the first
    c.model.temperature = 0.07  # section 4
    # The groups decide which leads a view lacks.
    c.augment = tuple(step for step in c.augment if step["name"] != "lead_mask")
    return c
