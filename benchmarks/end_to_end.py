"""Training with its text tower: ours against a PyTorch loop that runs BERT in every step.

    python -m benchmarks.end_to_end                                # simulated records, small
    python -m benchmarks.end_to_end --dataset ptb_xl --data_dir data --batch 128 --epochs 20
    python -m benchmarks.end_to_end --torch_python OTHER/bin/python    # where PyTorch is elsewhere

Every side is a process of its own, started in turn: ours with empty caches (cold) and again (warm),
then `end_to_end_torch.py`. All of them train ResNet18-1D with two linear heads on the same records,
reports and text weights, without augmentation, in the same precision. The clock starts before the
interpreter does. `epoch` is the median step times the steps in an epoch; `run` is the time to the
first step and `--epochs` of those.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from benchmarks import report
from configs import etp
from ecg_jax.data import records, resident
from ecg_jax.experiment import report_texts
from ecg_jax.text import tower
from tfds_builders import prepare

AGREE = 1e-3  # largest difference between the two sides' embeddings of the same reports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="simulated")
    parser.add_argument("--data_dir", type=Path, help="prepared records; default: simulate some")
    parser.add_argument("--records", type=int, default=300, help="to simulate")
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--text", default="minilm", help="a text tower with model.safetensors")
    parser.add_argument("--steps", type=int, default=6, help="timed, after the first")
    parser.add_argument("--epochs", type=int, default=20, help="of the run that is worked out")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--torch_python", default=sys.executable, help="interpreter with PyTorch")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")  # of this process, which leaves a GPU to the sides
    with tempfile.TemporaryDirectory() as scratch:
        compare(args, Path(scratch))


def compare(args: argparse.Namespace, scratch: Path) -> None:
    if args.data_dir is None:
        args.data_dir = scratch / "data"
        options = ["--rate", str(args.rate), "--records", str(args.records)]
        prepare.main(["simulated", *options, "--data_dir", str(args.data_dir)])
    job, steps = export(args, scratch)
    ours = [sys.executable, "-m", "benchmarks.end_to_end_jax"]
    theirs = [args.torch_python, "-m", "benchmarks.end_to_end_torch"]
    found: dict[str, list[dict]] = {"ours, cold": [], "ours, warm": [], "PyTorch, BERT a step": []}
    for i in range(args.rounds):
        cache = {"ECG_JAX_CACHE": str(scratch / f"cache{i}")}
        for (name, runs), command in zip(found.items(), (ours, ours, theirs), strict=True):
            print(f"round {i + 1} of {args.rounds}: {name}", file=sys.stderr)
            runs.append(run(command, job, cache))
    check_same(found)
    rows = [figures(name, runs, steps, args.epochs) for name, runs in found.items()]
    for row in rows:
        for column in ("first_step_s", "epoch_s", "run_s"):
            row[f"{column.removesuffix('_s')} ratio"] = rows[-1][column] / row[column]
    about = {name: getattr(args, name) for name in ("dataset", "rate", "batch", "text", "epochs")}
    sizes = {name: found["ours, cold"][0][name] for name in ("pairs", "reports", "device", "dtype")}
    torch = found["PyTorch, BERT a step"][0]
    report.show(rows, **about, **sizes, torch=torch["torch"], tokens=torch["tokens"])


def export(args: argparse.Namespace, scratch: Path) -> tuple[dict, int]:
    """What both sides are told; PyTorch's records as an array, ready in memory-mapped form."""
    config = etp.get_config(f"rate={args.rate},text={args.text}")
    config.data_dir, config.dataset = str(args.data_dir), args.dataset
    split = records.load(args.data_dir, args.dataset, args.rate, "train")
    texts, row = report_texts(config, split)
    kept = np.flatnonzero(row >= 0)
    np.save(scratch / "ecg.npy", split.ecg[kept])
    (scratch / "texts.json").write_text(json.dumps([texts[i] for i in row[kept]]))
    job = {
        "data_dir": str(args.data_dir),
        "dataset": args.dataset,
        "rate": args.rate,
        "batch": args.batch,
        "steps": args.steps,
        "text": args.text,
        "tower": str(tower.find_folder(args.text)),
        "lowercase": not tower.load(args.text).cased,
        "exported": str(scratch),
    }
    return job, resident.steps_per_epoch(len(kept), args.batch, min(config.shards, args.batch))


def run(command: list[str], job: dict, environment: dict[str, str]) -> dict:
    """The figures that one side prints on its last line."""
    done = subprocess.run(
        [*command, json.dumps({**job, "started": time.time()})],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def check_same(found: dict[str, list[dict]]) -> None:
    """The sides must have the same network and the same text tower, or the ratio means nothing."""
    (ours, *_), _, (theirs, *_) = found.values()
    if ours["parameters"] != theirs["parameters"]:
        sys.exit(f"{ours['parameters']:,} parameters here, {theirs['parameters']:,} in PyTorch")
    difference = np.abs(np.subtract(ours["embedding"], theirs["embedding"])).max()
    if not difference < AGREE:
        sys.exit(f"the embeddings of the same report differ by {difference}")


def figures(name: str, runs: list[dict], steps: int, epochs: int) -> dict:
    first = statistics.median(run["first_step"] for run in runs)
    step = statistics.median(seconds for run in runs for seconds in run["steps"])
    total = first + (epochs * steps - 1) * step
    return {
        "side": name,
        "first_step_s": first,
        "step_s": step,
        "epoch_s": steps * step,
        "run_s": total,
    }


if __name__ == "__main__":
    main()
