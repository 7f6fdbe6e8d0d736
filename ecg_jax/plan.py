"""What a run takes on devices that are not here: compiled for them, counted, not run.

    python -m ecg_jax.plan --config FILE[:ARGS] --target TARGET [--config.FIELD=VALUE]
        [--records N] [--json FILE]

TARGET is a GPU and how many (h100, h100x8, a100x16, ...) or a slice of TPUs (v5e:4x4, v5p:4x4x4,
...). Neither the data nor the devices are needed, only the package that compiles for them
(ecg-jax[cuda], ecg-jax[tpu]). Prints whether the training step fits into their memory, its
arithmetic, bytes and collectives, and how many records a second these allow at best. A step that
does not fit, or cannot be, is one line and exit status 2.
"""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from ecg_jax.errors import UserError, run_main
from ecg_jax.runtime import storage
from ecg_jax.runtime.files import write_whole

# Training splits of the datasets that the builders know: PTB-XL 1.0.3, folds 1-8; CPSC2018, see
# tfds_builders/cpsc2018; MIT-BIH's 17 records of DS1 in windows of 10 s; LUDB; 98 % of
# MIMIC-IV-ECG's 800,035, before what has no finding is left out; the default simulation.
RECORDS = {
    "ptb_xl": 17_418,
    "cpsc2018": 4_968,
    "mit_bih": 3_077,
    "ludb": 128,
    "mimic_iv_ecg": 784_034,
    "simulated": 2_411,
}


def main() -> None:
    # Compiling for a device needs no device, and takes none where there is one.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from ecg_jax.planning import show, targets
    from ecg_jax.planning.bounds import DoesNotFitError
    from ecg_jax.planning.estimate import estimate
    from ecg_jax.runtime import process

    process.configure()
    config, name, records, file = read(sys.argv)
    target = targets.parse(name)
    try:
        found = estimate(config, target, records)
    except DoesNotFitError as error:
        if file:
            write(file, unfit(target, error))
        raise
    print(show.text(found))
    if file:
        write(file, found.facts())


def unfit(target: Any, error: Any) -> dict[str, Any]:
    """What the file says of a step that does not fit: what was not compiled is null."""
    unknown = ("flops_per_record", "bytes_per_record", "kernels", "collectives")
    return {
        "target": target.name,
        "devices": target.devices,
        "fits": False,
        "memory_bytes": error.bytes,
        "capacity_bytes": error.capacity,
        **dict.fromkeys((*unknown, "records_per_second_bound", "limited_by")),
        "note": str(error),
    }


def write(file: str, facts: dict[str, Any]) -> None:
    write_whole(storage.expanded(file), (json.dumps(facts, indent=2) + "\n").encode())


def read(argv: Sequence[str]) -> tuple[Any, str, int, str]:
    """(config, target, records, file for JSON) of a command line."""
    from ecg_jax.run import config as config_lib

    values = flags.FlagValues()
    flags.DEFINE_string("target", None, "devices to compile for", flag_values=values)
    flags.DEFINE_integer("records", None, "of the training split", flag_values=values)
    flags.DEFINE_string("json", "", "a file for the figures", flag_values=values)
    config = config_lib.parse_config(argv, __doc__ or "", values)
    if not values.target:
        raise UserError("--target is missing: the devices, such as --target h100x8 or v5e:4x4")
    records = RECORDS.get(config.dataset) if values.records is None else values.records
    if records is None:
        raise UserError(
            f"how many records the training split of {config.dataset} has is not known here: "
            "say it with --records"
        )
    if records < 1:
        raise UserError(f"--records {records}: must be above zero")
    if values.records is None:
        print(f"{records:,} records, as published of {config.dataset} train (--records: others)")
    return config, values.target, records, values.json


if __name__ == "__main__":
    run_main(main)
