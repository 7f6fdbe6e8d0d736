"""Which programs compile for which devices, without the devices, and what memory they take.

    python -m benchmarks.compile_matrix --targets h100 v5e:4x4 --configs etp simclr

Each program is compiled in a process of its own, since a compiler may end its process: the training
step (`train`), the encoder in evaluation (`encode`) and, as fine-tuning makes it, the gradient of a
loss on labels through the encoder (`finetune`). Records are whole, 12 x 10 s, also of configs that
learn from a stretch of each; `--crop` leaves it to the config. Figures are of a step and device.
Rows that are in the file of --json are not compiled again.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

CONFIGS = sorted(p.stem for p in Path("configs").glob("*.py") if p.stem != "common")
PROGRAMS = ("train", "encode", "finetune")
RECORDS, TEXT, CLASSES = 17_418, 768, 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--targets", nargs="+", default=["h100", "v5e:4x4"])
    parser.add_argument("--configs", nargs="+", default=CONFIGS)
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--batch", type=int, default=256, help="records of a chip")
    parser.add_argument("--crop", action="store_true", help="as the config's augmentations say")
    parser.add_argument("--json", type=Path, help="a file for the rows, and of those that are done")
    parser.add_argument("--one", action="store_true", help="the first of each, in this process")
    args = parser.parse_args()
    if args.one:
        options = args.targets[0], args.configs[0], args.programs[0], args.rate, args.batch
        print(json.dumps(compiled(*options, crop=args.crop)))
        return
    done = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    print("| jax | target | config | program | samples | " + " | ".join(COLUMNS) + " |")
    print("|---" * (5 + len(COLUMNS)) + "|")
    for target in args.targets:
        for config in args.configs:
            for program in args.programs:
                length = f"{args.rate * 10:,}{' cropped' * args.crop}"
                key = (version("jax"), target, config, program, length, str(args.batch))
                if " ".join(key) not in done:
                    done[" ".join(key)] = cell(target, config, program, args)
                    if args.json:
                        args.json.write_text(json.dumps(done, indent=1))
                cells = described(done[" ".join(key)])
                print(f"| {' | '.join(key[:-1])} | {cells} |", flush=True)


COLUMNS = ("CPU s", "temporary GB", "kernels", "MB a record", "by XLA", "collectives")


def cell(target: str, config: str, program: str, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.compile_matrix", "--one", "--targets", target]
    command += ["--configs", config, "--programs", program]
    command += ["--rate", str(args.rate), "--batch", str(args.batch), *["--crop"] * args.crop]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "rror" in line or "Check" in line]
        return {"failed": (lines or [f"status {done.returncode}"])[-1][:120]}
    return json.loads(done.stdout.splitlines()[-1])


def described(found: dict[str, Any]) -> str:
    if "failed" in found:
        return f"**{found['failed']}**" + " |" * (len(COLUMNS) - 1)
    xla = found["xla"]
    return (
        f"{found['seconds']:.0f} | {found['temporary'] / 1e9:.2f} | {found['kernels']:.0f} | "
        f"{found['bytes'] / 1e6:.1f} | {xla / 1e6 if xla else 0:.1f} | "
        + ", ".join(f"{times:.0f} {kind}" for kind, times in found["collectives"].items())
    )


def compiled(
    name: str, config: str, program: str, rate: int, batch: int, *, crop: bool = False
) -> dict[str, Any]:
    """Processor seconds, bytes of temporaries, kernels of a step, bytes of memory traffic a record,
    those by XLA's cost analysis (None where it has none) and collectives by their kind."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    from configs import common
    from ecg_jax.methods import build
    from ecg_jax.planning import estimate, hlo, targets
    from ecg_jax.planning import program as programs
    from ecg_jax.runtime import parallel

    target = targets.parse(name)
    c = importlib.import_module(f"configs.{config}").get_config(f"rate={rate}")
    c = c if crop else common.whole(c)
    c.shards = max(c.shards, target.devices)
    c.batch_size, c.model.dtype = batch * target.devices, "bfloat16"
    mesh, width = target.mesh(), TEXT if "text" in c else 0
    records = max(RECORDS, 2 * c.batch_size)
    start = time.process_time()
    if program == "train":
        traced = programs.trace(c, mesh, records=records, width=width)
        done = traced.compile()
    else:
        method = build(c, parallel.platform(mesh))
        done = jax.jit(run(method, program)).lower(*arguments(c, mesh, method, width)).compile()
    seconds = time.process_time() - start
    count = hlo.of_step if program == "train" else hlo.count
    counts = count(done.as_text(), devices=target.devices)
    kinds: Counter[str] = Counter()
    for collective in counts.collectives:
        kinds[collective.kind] += collective.times
    analysis = estimate.of_xla(done)
    return {
        "seconds": seconds,
        "temporary": done.memory_analysis().temp_size_in_bytes,
        "kernels": counts.kernels,
        "bytes": counts.whole / batch,
        "xla": analysis and analysis[1] / batch,
        "collectives": dict(kinds),
    }


def run(method: Any, program: str) -> Any:
    import jax
    import jax.numpy as jnp
    import optax

    if program == "encode":
        return lambda params, state, ecg, mask, y: method.encode(params, state, ecg, mask)

    def loss(params: Any, state: Any, ecg: jax.Array, mask: jax.Array, y: jax.Array) -> Any:
        features, new = method.train_encode(params, state, ecg, mask)
        logits = jnp.asarray(features)[:, :CLASSES]
        return optax.sigmoid_binary_cross_entropy(logits, y).mean(), new

    return jax.grad(loss, has_aux=True)


def arguments(config: Any, mesh: Any, method: Any, width: int) -> tuple:
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    from ecg_jax.run.experiment import blank
    from ecg_jax.runtime import parallel

    B, T = config.batch_size, round(config.seconds * config.rate)

    def laid(x: Any, spec: PartitionSpec) -> Any:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    shapes = jax.eval_shape(method.init, jax.random.key(0), blank(T, width))
    params, state = jax.tree.map(lambda x: laid(x, PartitionSpec()), shapes)
    by_record = [((B, T, 12), "float32"), ((B, 12), "bool"), ((B, CLASSES), "float32")]
    arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in by_record]
    return params, state, *(laid(x, PartitionSpec(parallel.AXIS)) for x in arrays)


if __name__ == "__main__":
    main()
