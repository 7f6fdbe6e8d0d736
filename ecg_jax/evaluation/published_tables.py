"""What each table of `python -m ecg_jax.reproduce` trains and evaluates."""

import dataclasses
import functools
from typing import Any

from ecg_jax.evaluation import controls


@dataclasses.dataclass(frozen=True)
class Table:
    """What a table needs beyond pre-training.

    Attributes:
      method: of `configs/`, the one that the table is about.
      targets: dataset -> its tasks that are evaluated.
      protocols, fractions, conditions: as in `config.evaluate`.
      shuffled: whether the control with permuted reports is trained, too.
      rules, finetune_rules, finetune_fractions, controls: as in `config.evaluate`.
      baselines: other methods of `configs/`, pre-trained and evaluated alike.
      once: whether baselines and the control with permuted reports have the first seed alone.
      rate: in Hz, if the command names none.
      everywhere: whether baselines are examined under the conditions, too.
      retrieval: whether reports are retrieved on PTB-XL.
      finetune_leads: as in `config.evaluate`.
      lead_sets: how many leads a pre-training is shown; with each, all of the table's methods.
      corpus: what is pre-trained on; the argument of the configs, PTB-XL if it is empty.
      variants: other forms of the method, each with the fields of `config.model` that differ.
    """

    method: str
    targets: dict[str, tuple[str, ...]]
    protocols: tuple[str, ...]
    fractions: tuple[float, ...] = (1.0,)
    conditions: tuple[str, ...] = ()
    shuffled: bool = False
    rules: tuple[str, ...] = ("corrected", "paper")
    finetune_rules: tuple[str, ...] = ("corrected", "paper")
    finetune_fractions: tuple[float, ...] = (0.05,)
    controls: tuple[str, ...] = ("random",)
    baselines: tuple[str, ...] = ()
    once: bool = False
    rate: int = 500
    everywhere: bool = False
    retrieval: bool = True
    finetune_leads: tuple[int, ...] = (12,)
    lead_sets: tuple[int, ...] = (12,)
    corpus: str = ""
    variants: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


READING = ("zero_shot", "zero_shot_reports", "own_report")
FROZEN = (*READING, "linear_probe", "attention_probe", "knn", "identify")


NAMES = {
    "cpc": "CPC",
    "simclr": "SimCLR",
    "byol": "BYOL",
    "simsiam": "SimSiam",
    "moco": "MoCo",
    "swav": "SwAV",
    "cmc": "CMC",
    "pirl": "PIRL",
    "tstcc": "TS-TCC",
    "clocs": "CLOCS",
    "astcl": "ASTCL",
    "mets": "METS",
    "w2v_cmsc_rlm": "W2V+CMSC+RLM",
    "w2v": "W2V",
    "cmsc": "CMSC",
    "w2v_rlm": "W2V+RLM",
    "cmsc_rlm": "CMSC+RLM",
}  # as the papers print them

WITH_WAVES = ("ludb",)  # datasets whose samples are labelled
SUPER, CPSC = {"ptb_xl": ("super",)}, {"cpsc2018": ("cpsc",)}
METS = functools.partial(
    Table,
    "mets",
    protocols=("zero_shot", "finetune", "supervised"),
    shuffled=True,
    baselines=("simclr",),
)
LEAD_AGNOSTIC_CONFIGS = ("w2v_cmsc_rlm", "w2v", "cmsc", "w2v_rlm", "cmsc_rlm")
LEAD_SETS = ("6 leads", "4 leads", "3 leads", "2 leads", "1 lead")
LEAD_AGNOSTIC = functools.partial(
    Table,
    "w2v_cmsc_rlm",
    {"ptb_xl": ("challenge", "super")},
    ("linear_probe", "identify", "finetune"),
    (0.1, 1.0),
    rules=("corrected",),
    finetune_rules=("corrected",),
    finetune_fractions=(1.0,),
    rate=100,
    everywhere=True,
    retrieval=False,
)
TABLES = {
    "lead-agnostic-table1": LEAD_AGNOSTIC(
        LEAD_SETS,
        baselines=("w2v", "cmsc", "simclr", "etp"),
        finetune_leads=(12, 6, 4, 3, 2, 1),
    ),
    "lead-agnostic-table2": LEAD_AGNOSTIC(
        (), baselines=("w2v", "cmsc"), lead_sets=(12, 6, 3, 2, 1)
    ),
    "lead-agnostic-table3": LEAD_AGNOSTIC(
        LEAD_SETS, baselines=("w2v_rlm", "cmsc_rlm"), finetune_leads=(12, 6, 3, 2, 1)
    ),
    "ptb-xl": Table(
        "etp",
        {"ptb_xl": ("super", "sub", "form", "rhythm", "diagnostic", "all")},
        (*READING, "linear_probe", "attention_probe", "knn", "finetune", "supervised"),
        (0.01, 0.1, 1.0),
        ("all",),
        shuffled=True,
        rules=("corrected", "ecg_fix"),
        finetune_rules=("corrected",),
        finetune_fractions=(0.05, 1.0),
        controls=controls.NAMES,
        baselines=("mets", "simclr", "moco", "tstcc"),
        once=True,
        rate=100,
    ),
    "etp-table1": Table(
        "etp",
        SUPER | CPSC,
        ("linear_probe", "knn", "finetune", "supervised"),
        (0.01, 0.1, 1.0),
        shuffled=True,
        finetune_rules=("corrected",),
        baselines=tuple(name for name in NAMES if name not in LEAD_AGNOSTIC_CONFIGS),
    ),
    "etp-table2": Table("etp", SUPER, ("zero_shot", "supervised"), shuffled=True),
    "etp-table3": Table("etp", CPSC, ("zero_shot", "supervised"), shuffled=True),
    "mets-table1": METS(SUPER),
    "mets-table2": METS({"ptb_xl": ("form",)}),
    "mets-table3": METS({"mit_bih": ("aami",)}),
    # Targets of records and, after the plus, of beats. The config has the best of them, soft+hard.
    "beat-ssl": Table(
        "beat_ssl",
        SUPER | {"ludb": ("rhythm",)},
        ("linear_probe", "delineate"),
        (0.1, 1.0),
        rules=("corrected",),
        baselines=("simclr",),
        rate=100,
        retrieval=False,
        variants={
            "hard": {"rhythm": "identity", "beat": "none", "exponent": 1.0},
            "hard+hard": {"rhythm": "identity", "beat": "class", "exponent": 1.0},
            "soft": {"beat": "none"},
            "soft+soft": {"beat": "cosine"},
            "ours": {"rhythm": "exp", "beat": "exp", "positives": 16.0, "against": "batch"},
        },
    ),
    # Out of domain: pre-trained on MIMIC-IV-ECG, as what is printed beside it.
    "mimic": Table(
        "etp",
        {"ptb_xl": ("super", "sub", "form", "rhythm"), "cpsc2018": ("cpsc",)},
        ("zero_shot", "linear_probe"),
        (0.01, 0.1, 1.0),
        rules=("corrected",),
        controls=controls.NAMES,
        baselines=("mets", "simclr"),
        once=True,
        rate=100,
        corpus="mimic",
    ),
    "corrected": Table(
        "etp",
        {"ptb_xl": ("super", "sub", "form", "rhythm"), "mit_bih": ("aami",)},
        ("zero_shot", "linear_probe", "knn", "finetune", "supervised"),
        (0.01, 0.05, 0.1, 1.0),
        ("all",),
        shuffled=True,
        finetune_rules=("corrected",),
    ),
}
