"""CMSC and random lead masking (Oh et al. 2022, table 3) on PTB-XL: see configs/w2v_cmsc_rlm.py.

python -m ecg_jax.train --config configs/cmsc_rlm.py:rate=100 --workdir runs/cmsc_rlm
"""

from ml_collections import ConfigDict

from configs import w2v_cmsc_rlm


def get_config(arg: str | None = None) -> ConfigDict:
    c = w2v_cmsc_rlm.get_config(arg)
    c.model.kind = "cmsc"
    return c
