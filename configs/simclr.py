"""SimCLR (Chen et al. 2020) on PTB-XL, with the optimisation of all methods here.

    python -m ecg_jax.train --config configs/simclr.py --workdir runs/simclr
    python -m ecg_jax.train --config configs/simclr.py:demo --workdir runs/simclr_demo

Results: docs/reproducing.md.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    return common.self_supervised(common.parse_arg(arg), "simclr")
