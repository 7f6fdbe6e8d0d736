"""SwAV (Caron et al. 2020) on PTB-XL, with the optimisation of all methods here.

    python -m ecg_jax.train --config configs/swav.py --workdir runs/swav
    python -m ecg_jax.train --config configs/swav.py:demo --workdir runs/swav_demo

Results: docs/reproducing.md.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    c = common.self_supervised(common.parse_arg(arg), "swav")
    c.model.prototypes = 64  # the paper's 3,000 are for batches of 4,096
    c.model.epsilon = 0.05
    c.model.freeze = 1  # epochs before the prototypes learn
    c.model.queue = 0  # earlier records that are assigned along; 0: the batch is enough for 64
    c.model.queue_from = 0.5  # share of the run after which the queue is used
    return c
