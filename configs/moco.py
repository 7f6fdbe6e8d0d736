"""MoCo v2 (He et al. 2020, Chen et al. 2020) on PTB-XL, with the optimisation of all methods here.

    python -m ecg_jax.train --config configs/moco.py --workdir runs/moco
    python -m ecg_jax.train --config configs/moco.py --config.model.version=3 --workdir runs/moco_v3
    python -m ecg_jax.train --config configs/moco.py:demo --workdir runs/moco_demo

Results: docs/reproducing.md.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    c = common.self_supervised(common.parse_arg(arg), "moco")
    c.model.version = 2  # or 3 (Chen et al. 2021): no queue, a predictor
    # v2's 0.999 and 65,536 keys are for a million updates on a million images. In some hundred
    # updates the key encoder would not arrive, and keys of long ago are another network's. (The
    # length was not chosen by measurement.) The temperature is that of all methods here, not 0.2.
    c.model.momentum = 0.99
    c.model.queue = 256
    return c
