"""PIRL (Misra and van der Maaten 2020) on PTB-XL, with the optimisation of all methods here.

    python -m ecg_jax.train --config configs/pirl.py --workdir runs/pirl
    python -m ecg_jax.train --config configs/pirl.py:demo --workdir runs/pirl_demo

Results: docs/reproducing.md.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    c = common.self_supervised(common.parse_arg(arg), "pirl")
    c.model.hidden = 0  # section 2.3: all heads are linear
    c.model.temperature = 0.07
    c.model.pieces = 5  # of 1.8 s, cut from 2 s; the paper cuts an image into 9
    c.model.negatives = 512  # of 2,300 records; the paper draws 32,000 of 1.28 million
    c.model.jigsaw_weight = 0.5  # lambda of equation 5
    c.model.bank_momentum = 0.5
    return c
