"""METS on PTB-XL: a frozen language model for ECG zero-shot learning (Li et al. 2023).

    python -m ecg_jax.train --config configs/mets.py --workdir runs/mets
    python -m ecg_jax.train --config configs/mets.py:paper --workdir runs/mets_paper

`paper` is the pre-training of section 4.2 to the letter (batch 32, 50 epochs); `modern`, the
default, is `configs/etp.py`'s optimisation with METS's template and 128-dimensional heads.
"""

from ml_collections import ConfigDict

from configs import common, etp


def get_config(arg: str | None = None) -> ConfigDict:
    given = common.parse_arg(arg)
    c = common.against_reports(given, "mets")
    c.text.template = "The report of the ECG is that {text}"
    c.model.dim = 128
    c.evaluate.paper = "mets"
    c.model.learn_temperature = True  # "the initialization of tau is set to 0.07"
    c.batch_size = 32
    c.optimizer.learning_rate = 1e-3
    c.optimizer.weight_decay = 1e-3
    c.epochs = 50
    if given.paper:
        c.text.language = "original"
    else:
        etp.modern(c)
        c.batch_size = 128
    if given.mimic:
        etp.mimic(c)
    if given.demo:
        etp.demo(c, given)
    return c
