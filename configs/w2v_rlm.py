"""wav2vec 2.0 and random lead masking (Oh et al. 2022, table 3) on PTB-XL: see
configs/w2v_cmsc_rlm.py.

python -m ecg_jax.train --config configs/w2v_rlm.py:rate=100 --workdir runs/w2v_rlm
"""

from ml_collections import ConfigDict

from configs import w2v_cmsc_rlm


def get_config(arg: str | None = None) -> ConfigDict:
    c = w2v_cmsc_rlm.get_config(arg)
    c.model.kind = "w2v"
    return c
