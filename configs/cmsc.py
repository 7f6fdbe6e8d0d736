"""CMSC alone, the contrast of adjacent segments, in the network of wav2vec 2.0 (Oh et al. 2022,
section 4) on PTB-XL: see configs/w2v_cmsc_rlm.py.

python -m ecg_jax.train --config configs/cmsc.py:rate=100 --workdir runs/cmsc
"""

from ml_collections import ConfigDict

from configs import w2v_cmsc_rlm


def get_config(arg: str | None = None) -> ConfigDict:
    c = w2v_cmsc_rlm.get_config(arg)
    c.model.kind = "cmsc"
    c.augment = ()  # no random lead masking
    return c
