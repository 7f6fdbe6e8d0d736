"""BYOL (Grill et al. 2020) on PTB-XL, with the optimisation of all methods here.

    python -m ecg_jax.train --config configs/byol.py --workdir runs/byol
    python -m ecg_jax.train --config configs/byol.py:demo --workdir runs/byol_demo

Results: docs/reproducing.md.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    c = common.self_supervised(common.parse_arg(arg), "byol")
    del c.model.temperature  # the loss has none
    c.model.momentum = 0.99  # of 0.996 the target would not arrive in some hundred updates
    return c
