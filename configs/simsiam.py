"""SimSiam (Chen and He 2021) on PTB-XL, with the optimisation of all methods here.

    python -m ecg_jax.train --config configs/simsiam.py --workdir runs/simsiam
    python -m ecg_jax.train --config configs/simsiam.py:demo --workdir runs/simsiam_demo

Results: docs/reproducing.md.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    c = common.self_supervised(common.parse_arg(arg), "simsiam")
    c.optimizer.learning_rate = common.WITHOUT_NEGATIVES
    del c.model.temperature  # the loss has none
    c.model.dim = 512  # as wide as the projector's hidden layers; the paper's 2,048 are ResNet-50's
    c.model.bottleneck = 128  # a quarter of dim, as in the paper
    return c
