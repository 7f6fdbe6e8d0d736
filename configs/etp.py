"""ETP on PTB-XL (Liu et al. 2023).

    python -m tfds_builders.prepare ptb_xl --source PTB_XL --rate 500 --data_dir data
    python -m ecg_jax.train --config configs/etp.py --workdir runs/etp
    python -m ecg_jax.train --config configs/etp.py:paper --workdir runs/etp_paper
    python -m ecg_jax.train --config configs/etp.py:demo --workdir runs/demo
    python -m ecg_jax.train --config configs/etp.py:mimic --workdir runs/mimic

`paper` is the pre-training of section 3.2 to the letter; `modern`, the default, keeps the towers,
heads and batch, and changes the optimisation and the loss's targets. `demo` runs on simulated
records with the stand-in text model, `mimic` on MIMIC-IV-ECG (docs/mimic.md).
Results: docs/results.md.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str | None = None) -> ConfigDict:
    given = common.parse_arg(arg)
    c = common.against_reports(given, "etp")
    c.batch_size = 128
    c.optimizer.learning_rate = 2e-3
    c.optimizer.weight_decay = 1e-5
    c.epochs = 50
    if given.paper:
        c.text.language = "original"
    else:
        modern(c)
    if given.mimic:
        mimic(c)
    if given.demo:
        demo(c, given)
    return c


def modern(c: ConfigDict) -> None:
    common.modern(c)
    c.epochs = 40  # of one view a record: what methods of two views see in 20
    if c.text.tower == "minilm":  # chosen with it; how alike reports look differs between towers
        c.model.soft_targets = 0.02
    c.model.same_report = True
    c.text.sentences = 0.5  # each finding of a report is a positive by itself, too


def mimic(c: ConfigDict) -> None:
    common.mimic(c)
    # A patient's later reports repeat the earlier ones nearly word for word.
    c.model.spare_patient = True


def demo(c: ConfigDict, given: ConfigDict) -> None:
    c.dataset = "simulated"
    c.build = True
    c.text.tower = given.text or "minilm"
    c.epochs = 7
    c.text.sentences = 0.0
    c.augment = ({"name": "scale"},)  # a short run learns the findings sooner undisturbed
    c.evaluate.tasks = ("findings", "super")
    c.evaluate.select = "findings"
    c.evaluate.protocols = ("zero_shot", "linear_probe")
    c.evaluate.draws = 200
    c.evaluate.null_draws = 0
