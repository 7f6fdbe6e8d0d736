"""ASTCL (Wang et al. 2024) on PTB-XL, with the optimisation of all methods here.

    python -m ecg_jax.train --config configs/astcl.py --workdir runs/astcl
    python -m ecg_jax.train --config configs/astcl.py:demo --workdir runs/astcl_demo

The paper's hyper-parameters are not public: those here are this project's. The views are aligned in
time, since one predicts the other's next segment, so they are not shifted.
Results: docs/reproducing.md.
"""

from ml_collections import ConfigDict

from configs import common

LESS = (
    {"name": "scale"},
    {"name": "time_mask", "fraction": 0.3},
    {"name": "lead_mask", "probability": 0.2},
)


def get_config(arg: str | None = None) -> ConfigDict:
    c = common.self_supervised(common.parse_arg(arg), "astcl")
    c.optimizer.learning_rate = common.WITHOUT_NEGATIVES
    del c.model.temperature  # the loss has none
    c.augment = ({"name": "jitter", "sd": 0.1}, {"name": "wander", "sd": 0.2}, *LESS)
    c.augment_second = LESS
    c.model.segments = 4  # of 2.5 s: each holds two beats or more
    c.model.temporal = 1.0
    c.model.adversarial = 0.1
    return c
