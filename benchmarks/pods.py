"""ETP at 128 records a chip on slices of 1 to 256 TPU chips: memory and bytes between the chips.

    python -m benchmarks.pods                                        # v5e, plain loss
    python -m benchmarks.pods --chip v5p --losses plain,gathered,ring --batch_norm global,device
    python -m benchmarks.pods --sizes 1,16,256 --rate 100 --width 8  # quicker, smaller

Each row is a program that XLA compiled for the slice, and that nobody ran. A row takes minutes on
two cores; those that are done are in the file of --json, and are not compiled again.
"""

import argparse
import json
import math
import os
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

from benchmarks import report
from configs import etp
from ecg_jax.errors import UserError
from ecg_jax.planning import targets
from ecg_jax.planning.estimate import Estimate, estimate

RECORDS = 17_418  # PTB-XL's training split
LARGER = 4 * 128  # and at least so many records for each chip, that a batch is an eighth of them


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chip", choices=("v5e", "v5p", "v6e"), default="v5e")
    parser.add_argument("--sizes", default="1,4,8,16,32,64,128,256", help="chips")
    parser.add_argument("--losses", default="plain")
    parser.add_argument("--batch_norm", default="global")
    parser.add_argument("--each", type=int, default=128, help="records of a chip in a step")
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--width", type=int, default=64, help="of the network's first stage")
    parser.add_argument("--json", type=Path, default=Path("pods.json"))
    args = parser.parse_args()
    done = json.loads(args.json.read_text()) if args.json.exists() else {}
    for loss in args.losses.split(","):
        for norm in args.batch_norm.split(","):
            for size in map(int, args.sizes.split(",")):
                key = f"{args.chip} {size} {loss} {norm} {args.each} {args.rate} {args.width}"
                if key not in done and (row := measure(args, size, loss, norm)):
                    done[key] = row
                    args.json.write_text(json.dumps(done, indent=1))
    report.show(list(done.values()))


def measure(args: argparse.Namespace, size: int, loss: str, norm: str) -> dict[str, Any]:
    """A row; empty where there is no such slice."""
    slices = targets.sheet()[args.chip].slices
    names = [name for name in slices if math.prod(map(int, name.split("x"))) == size]
    if not names:
        return {}
    c = etp.get_config(f"rate={args.rate}")
    c.batch_size = args.each * size
    c.model.width = args.width
    c.parallel.loss, c.parallel.batch_norm = loss, norm
    row = {"chips": size, "loss": loss, "statistics": norm}
    try:
        target = targets.parse(f"{args.chip}:{names[0]}")
        return row | described(estimate(c, target, max(RECORDS, LARGER * size)))
    except UserError as error:
        return row | {"note": str(error)}


def described(e: Estimate) -> dict[str, Any]:
    """Of each chip and step."""
    found = e.counts.collectives
    return {
        "temporaries, GB": e.memory.temporaries / 1e9,
        "all, GB": e.memory.total / 1e9,
        "GB through memory": e.counts.bytes / 1e9,
        "collectives": round(sum(c.times for c in found)),
        "MB sent": sum(c.times * c.sent for c in found) / 1e6,
        "ms: arithmetic": 1e3 * e.bound.arithmetic,
        "ms: memory": 1e3 * e.bound.memory,
        "ms: links": 1e3 * e.bound.interconnect,
        "records/s at best": e.records_per_second,
        "compiled in, s": e.compile_seconds,
    }


if __name__ == "__main__":
    main()
