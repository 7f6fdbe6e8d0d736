"""ETP at 128 records a chip on slices of 1 to 256 TPU chips: memory and bytes between the chips.

    python -m benchmarks.pods                                        # v5e, plain loss
    python -m benchmarks.pods --chip v5p --losses plain,gathered,ring --batch_norm global,device
    python -m benchmarks.pods --part loss --losses plain,gathered,ring    # in a minute or two

The whole training step, or its loss alone (value and both gradients of the embeddings, which is
what grows with the slice; BatchNorm's statistics and the gradients' sum keep their size). Records
are whole, 12 x 10 s. Each row is a program that XLA compiled for the slice, and that nobody ran. A
row takes minutes on two cores; those in the file of --json are not compiled again.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp

from benchmarks import report
from configs import common, etp
from ecg_jax.errors import UserError
from ecg_jax.losses.contrastive import symmetric_info_nce
from ecg_jax.planning import bounds, hlo, targets
from ecg_jax.planning.estimate import Estimate, estimate
from ecg_jax.runtime import parallel

RECORDS = 17_418  # PTB-XL's training split
WIDTH = 512  # of ETP's embeddings
LARGER = 4 * 128  # and at least so many records for each chip, that a batch is an eighth of them


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("step", "loss"), default="step")
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
                given = (args.part, args.chip, size, loss, norm, args.each, args.rate, args.width)
                key = " ".join(map(str, given))
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
    target = targets.parse(f"{args.chip}:{names[0]}")
    row = {"chips": size, "loss": loss}
    if args.part == "loss":
        return row | of_loss(target, args.each * size, loss)
    c = common.whole(etp.get_config(f"rate={args.rate}"))
    c.batch_size = args.each * size
    c.model.width = args.width
    c.parallel.loss, c.parallel.batch_norm = loss, norm
    try:
        found = described(estimate(c, target, max(RECORDS, LARGER * size)))
    except UserError as error:
        found = {"note": str(error)}
    return row | {"statistics": norm} | found


def of_loss(target: targets.Target, batch: int, form: str) -> dict[str, Any]:
    """ETP's loss and its gradients in the embeddings alone, on each chip; equal reports are
    positives."""
    mesh = target.mesh()
    rows = parallel.by_record(mesh)
    embedding = jax.ShapeDtypeStruct((batch, WIDTH), jnp.float32, sharding=rows)
    group = jax.ShapeDtypeStruct((batch,), jnp.int32, sharding=rows)

    def value(e: jax.Array, t: jax.Array, group: jax.Array) -> jax.Array:
        return symmetric_info_nce(e, t, 0.07, group, form)

    began = time.monotonic()
    with jax.set_mesh(mesh):
        run = jax.jit(jax.value_and_grad(value, (0, 1)))
        compiled = run.lower(embedding, embedding, group).compile()
    counts = hlo.count(compiled.as_text(), devices=target.devices)
    bound = bounds.bound(
        target.chip,
        "bfloat16",
        flop=0.0,
        moved=counts.bytes,
        collectives=counts.collectives,
        devices=target.devices,
    )
    return {
        "batch": batch,
        "temporaries, MB": compiled.memory_analysis().temp_size_in_bytes / 1e6,
        "MB through memory": counts.bytes / 1e6,
        "collectives": round(sum(c.times for c in counts.collectives)),
        "MB sent": sum(c.times * c.sent for c in counts.collectives) / 1e6,
        "ms: memory": 1e3 * bound.memory,
        "ms: links": 1e3 * bound.interconnect,
        "compiled in, s": time.monotonic() - began,
    }


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
