"""TS-TCC (Eldele et al. 2021) on PTB-XL, with the optimisation of all methods here.

    python -m ecg_jax.train --config configs/tstcc.py --workdir runs/tstcc
    python -m ecg_jax.train --config configs/tstcc.py:demo --workdir runs/tstcc_demo

Results: docs/reproducing.md.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    c = common.self_supervised(common.parse_arg(arg), "tstcc")
    # The weak and the strong view of section 3.1. The paper's strengths are of other signals.
    c.augment = ({"name": "scale"}, {"name": "jitter", "sd": 0.05})
    c.augment_second = ({"name": "permute", "pieces": 5}, {"name": "jitter", "sd": 0.1})
    c.model.hidden = 64  # the transformer's, of 4 layers with 4 heads
    c.model.layers = 4
    c.model.heads = 4
    c.model.mlp = 64
    c.model.stretch = 1.0  # seconds that the encoder sees at once, as in configs/cpc.py
    c.model.ahead = 0.4  # of the stretches, as about in the released configs: 10 of 24, 50 of 127
    c.model.temperature = 0.2
    c.model.temporal = 1.0  # lambda_1
    c.model.contextual = 0.7  # lambda_2
    return c
