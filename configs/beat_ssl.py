"""Beat-SSL (Rizqyawan et al. 2026) on PTB-XL, with the optimisation of all methods here.

    python -m ecg_jax.train --config configs/beat_ssl.py --workdir runs/beat_ssl
    python -m ecg_jax.train --config configs/beat_ssl.py:modern --workdir runs/beat_ssl_modern
    python -m ecg_jax.train --config configs/beat_ssl.py:demo --workdir runs/beat_ssl_demo

The best line of the paper's ablation is soft targets for records and hard ones for beats, with an
exponent of 50. What its targets are computed by is not public: the cosine here is a guess that
gives the values of its drawing. `modern` has ours: distances, and a sharpness that leaves a record
as many effective positives in a batch as `positives` says.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    given = common.parse_arg(arg)
    c = common.self_supervised(given, "beat_ssl")
    c.augment = ()  # 3KG's views are the method's own, and beats must stay where they are
    c.model.degrees = 45.0  # to either side, about each of Frank's axes
    c.model.scale = 1.5
    c.model.erased = 0.5  # of each lead
    c.model.rhythm = "cosine"  # or exp, softclt, identity
    c.model.beat = "class"  # or exp, cosine, softclt, identity, none
    c.model.exponent = 50.0
    c.model.positives = 0.0
    c.model.form = "crossentropy"  # or weighted
    c.model.beats = 8  # of each record, drawn anew in every step
    c.model.beat_weight = 1.0
    c.model.against = "record"  # or batch
    if given.modern:
        c.model.rhythm = c.model.beat = "exp"
        c.model.positives = 16.0
        c.model.against = "batch"
    return c
