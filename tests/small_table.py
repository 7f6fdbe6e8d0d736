"""`python -m ecg_jax.reproduce` of a table of one tiny run: `small_table.py DATA_DIR ARGS`."""

import sys

import agreement

from ecg_jax import reproduce
from ecg_jax.errors import run_main
from ecg_jax.models import resnet1d


def recipe(args, table, run):
    config = agreement.small(args.data_dir)
    config.update(seed=run.seed, epochs=1)
    return config


if __name__ == "__main__":
    data_dir = sys.argv.pop(1)
    sys.argv += [f"--data_dir={data_dir}", "--seeds=3"]
    resnet1d.STAGES = agreement.SHALLOW
    table = reproduce.Table("etp", {"simulated": ("super",)}, ("zero_shot",))
    reproduce.TABLES, reproduce.recipe = {"etp-table2": table}, recipe
    reproduce.prepare = lambda args, dataset: None
    run_main(reproduce.main)
