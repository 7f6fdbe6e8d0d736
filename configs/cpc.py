"""CPC (van den Oord et al. 2018) on PTB-XL, with the optimisation of all methods here.

    python -m ecg_jax.train --config configs/cpc.py --workdir runs/cpc
    python -m ecg_jax.train --config configs/cpc.py:demo --workdir runs/cpc_demo

Results: docs/reproducing.md.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    c = common.self_supervised(common.parse_arg(arg), "cpc")
    del c.model.dim, c.model.temperature  # it has no projector, and its scores are products
    # Where a record is overwritten with zeros there is nothing to predict.
    c.augment = tuple(step for step in common.WHOLE if step["name"] not in ("shift", "time_mask"))
    c.model.hidden = 128  # of the GRU; section 3.1 has 256
    c.model.steps = 4  # section 3.1 has 12 of 10 ms each
    c.model.stretch = 1.0  # seconds that the encoder sees at once, about a heartbeat
    c.model.context = 6  # stretches; with the steps, 10 s
    c.model.times = 6  # of them that are predicted from: all, as in the paper
    return c
