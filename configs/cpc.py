"""CPC (van den Oord et al. 2018) on PTB-XL, with the optimisation of all methods here.

    python -m ecg_jax.train --config configs/cpc.py --workdir runs/cpc
    python -m ecg_jax.train --config configs/cpc.py:demo --workdir runs/cpc_demo

Results: docs/reproducing.md.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    c = common.self_supervised(common.parse_arg(arg), "cpc")
    # Where a record is overwritten with zeros there is nothing to predict.
    c.augment = tuple(step for step in c.augment if step["name"] not in ("shift", "time_mask"))
    c.model.hidden = 128  # of the GRU; the 256 of section 3.1 would cost 9 % of the encoder, not 4
    c.model.steps = 12  # section 3.1
    c.model.context = 20  # positions; with the steps, 10 s at 100 Hz and 2 s at 500 Hz
    c.model.times = 2  # of the 20 positions; all, as in the paper, would cost 25 % of the encoder
    return c
