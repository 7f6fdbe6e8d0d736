"""PIRL (Misra and van der Maaten 2020) on PTB-XL, with the optimisation of all methods here.

    python -m ecg_jax.train --config configs/pirl.py --workdir runs/pirl
    python -m ecg_jax.train --config configs/pirl.py:demo --workdir runs/pirl_demo

Results: docs/reproducing.md.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    c = common.self_supervised(common.parse_arg(arg), "pirl")
    # Section 2.3 has linear heads (hidden = 0). The BatchNorm of the hidden layer here keeps random
    # embeddings from lying too close together to learn from: after 5 epochs on PTB-XL, fold 9, an
    # effective rank of 18.5 where it was 3.7, nearest neighbours of .83 where they were .70.
    c.model.temperature = 0.07
    c.model.pieces = 5  # of 1.8 s, cut from 2 s; the paper cuts an image into 9
    c.model.negatives = 512  # of 2,300 records; the paper draws 32,000 of 1.28 million
    c.model.jigsaw_weight = 0.5  # lambda of equation 5
    c.model.bank_momentum = 0.5
    c.augment = common.WHOLE
    # After shift and time_mask one piece of eight is blank. Without these two for the pieces
    # (config.augment_second) nearest neighbours did no better: docs/results.md.
    return c
