"""wav2vec 2.0 with CMSC and random lead masking (Oh et al. 2022) on PTB-XL.

    python -m ecg_jax.train --config configs/w2v_cmsc_rlm.py:rate=100 --workdir runs/w2v_cmsc_rlm
    python -m ecg_jax.train --config configs/w2v_cmsc_rlm.py:code --workdir runs/w2v_code
    python -m ecg_jax.train --config configs/w2v_cmsc_rlm.py:demo --workdir runs/w2v_demo

`configs/w2v.py` and `configs/cmsc.py` are the two parts by themselves, without lead masking. The
default is the corrected method with the optimisation of all methods here, and a network that trains
on two cores. `code` is what the released code does (network `base`, constant learning rate, 512
records a batch in groups of 64); `paper` is so too, with the loss as it is printed. A token lasts
32 ms at 500 Hz and 60 ms at 100 Hz (`model.strides`).
"""

from ml_collections import ConfigDict

from configs import common
from ecg_jax.data.leads import LEADS
from ecg_jax.models import wav2vec2


def get_config(arg: str | None = None) -> ConfigDict:
    given = common.parse_arg(arg)
    recipe = "code" if given.code else "paper" if given.paper else ""
    if given.paper and given.code:
        raise ValueError("config arguments paper and code: choose one")
    given.paper = given.code = None
    c = common.self_supervised(given, "w2v_cmsc")
    for name in ("dim", "hidden", "temperature"):  # no head, and the temperature is the paper's
        del c.model[name]
    c.model.encoder = "wav2vec2"
    c.model.strides = wav2vec2.STRIDES[c.rate]  # a token is their product in samples
    c.model.token = 0  # channels of the convolutions; 0: the size's own
    c.model.extractor = "group"  # or layer: which norms the convolutions have
    c.model.dropout = 0.0  # of tokens and between layers; the paper's .1 is for a larger network
    c.model.attention_dropout = 0.0  # above 0 attention is no fused primitive
    c.model.conv_gradient = 0.1  # scale of the gradient into the convolutions
    c.model.kind = "w2v_cmsc"  # or w2v, cmsc
    c.model.leads = LEADS  # that are shown; fewer: those alone, in evaluation, too
    c.model.contrast = "corrected"  # or code, paper
    c.model.group = 0  # records of a batch that meet each other; 0: all
    c.model.masked = 0.355  # share of a segment's tokens that is hidden
    c.model.diversity = 0.1
    c.model.penalty = 10.0
    c.optimizer.learning_rate = 1e-3
    c.augment = ({"name": "lead_mask", "probability": 0.5},)
    if recipe:
        published(c)
        c.model.contrast = recipe
    if recipe == "paper":  # equation 5 has the two losses alone
        c.model.diversity = c.model.penalty = 0.0
    return c


def published(c: ConfigDict) -> None:
    """The network and optimisation of section 4 and the released code."""
    c.model.size = "base"
    c.model.dropout = c.model.attention_dropout = 0.1
    c.model.group = 64
    c.epochs = 200
    c.batch_size = 512
    c.average = 0.0
    c.optimizer.learning_rate = 5e-5
    c.optimizer.b2 = 0.98
    c.optimizer.weight_decay = 0.01
    c.optimizer.schedule = "constant"
    c.optimizer.warmup_epochs = 0
    c.optimizer.clip = 0.0
