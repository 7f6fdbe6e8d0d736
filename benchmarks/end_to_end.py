"""Training with its text tower: ours against a PyTorch loop that runs BERT in every step.

    python -m benchmarks.end_to_end                                # simulated records, small
    python -m benchmarks.end_to_end --dataset ptb_xl --data_dir data --batch 128 --epochs 20
    python -m benchmarks.end_to_end --torch_python OTHER/bin/python    # where PyTorch is elsewhere

Every side is a process of its own, started in turn: ours with empty caches (cold), ours again
(warm), then `end_to_end_torch.py`. They train ResNet18-1D with two linear heads on the same
records, reports and text weights, without augmentation, in the same precision. The time to the
first step begins before the interpreter does; after it the sides make their steps in alternating
rounds. `epoch` is the median step times the steps in an epoch; `run` is the time to the first step
and `--epochs` of those. `--text bert-base` stands for ClinicalBERT where only its cost matters:
random weights in BERT-base's shape.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from benchmarks import report
from configs import etp
from ecg_jax.data import records
from ecg_jax.models.bert import read_config
from ecg_jax.run.experiment import report_texts
from ecg_jax.text import tower, weights
from tfds_builders import prepare

AGREE = 1e-3  # largest difference between the two sides' embeddings of the same reports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="simulated")
    parser.add_argument("--data_dir", type=Path, help="prepared records; default: simulate some")
    parser.add_argument("--records", type=int, default=300, help="to simulate")
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--text", default="minilm", help="minilm, bert-base or a tower's folder")
    parser.add_argument("--steps", type=int, default=3, help="of each side in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20, help="of the run that is worked out")
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
    if args.text == "bert-base":
        args.text = str(random_bert(scratch / "bert-base"))
    job = export(args, scratch)
    ours = [sys.executable, "-m", "benchmarks.end_to_end_jax"]
    theirs = [args.torch_python, "-m", "benchmarks.end_to_end_torch"]
    cache = {"ECG_JAX_CACHE": str(scratch / "cache")}
    with Side(ours, job, cache) as side:
        cold = side.figures
    with Side(ours, job, cache) as warm, Side(theirs, job, {}) as torch:
        check_same(warm.figures, torch.figures)
        steps: dict[Side, list[float]] = {warm: [], torch: []}
        for i in range(args.rounds):
            for side, times in steps.items():
                print(f"round {i + 1} of {args.rounds}: {side.name}", file=sys.stderr)
                times += side.steps(args.steps)
    starts = {"ours, cold": cold, "ours, warm": warm.figures, "PyTorch": torch.figures}
    sides = (warm, warm, torch)
    rows = [
        row(name, start["first_step"], steps[side], warm.figures["steps"], args.epochs)
        for (name, start), side in zip(starts.items(), sides, strict=True)
    ]
    for r in rows:
        for column in ("first_step_s", "epoch_s", "run_s"):
            r[f"{column.removesuffix('_s')} ratio"] = rows[-1][column] / r[column]
    about = {name: getattr(args, name) for name in ("dataset", "rate", "batch", "text", "epochs")}
    sizes = {name: cold[name] for name in ("pairs", "reports", "device", "dtype")}
    report.show(rows, **about, **sizes, torch=torch.figures["torch"])


class Side:
    """A process that has made its first step, and makes more on command."""

    def __init__(self, command: list[str], job: dict, environment: dict[str, str]):
        self.name = command[-1]
        self._process = subprocess.Popen(
            [*command, json.dumps({**job, "started": time.time()})],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.figures: dict = self._read()

    def steps(self, count: int) -> list[float]:
        """Seconds of each of `count` more steps."""
        assert self._process.stdin
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith(("{", "[")):
                return json.loads(line)
        sys.exit(f"{self.name} failed with status {self._process.wait()}")

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *_) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def random_bert(folder: Path) -> Path:
    """A text tower of BERT-base's shape with random weights and the stand-in's vocabulary."""
    source = tower.find_folder("minilm")
    shape = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
    shape["intermediate_size"] = 3072
    config = {**json.loads((source / "config.json").read_text()), **shape}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(source / "vocab.txt", folder)
    rng, tensors = np.random.default_rng(0), {}
    for name, size in weights.parameter_shapes(read_config(folder / "config.json")).items():
        *parents, leaf = name.split("/")
        array = 0.02 * rng.standard_normal(size, np.float32) + (leaf == "scale")
        kind = "bias" if leaf == "bias" else "weight"
        tensor = array.T if leaf == "kernel" else array
        tensors[".".join([*parents, kind])] = np.ascontiguousarray(tensor)
    save_file(tensors, folder / "model.safetensors")
    return folder


def export(args: argparse.Namespace, scratch: Path) -> dict:
    """What both sides are told; PyTorch's records and reports are written for it."""
    config = etp.get_config(f"rate={args.rate},text={args.text}")
    config.data_dir, config.dataset = str(args.data_dir), args.dataset
    split = records.load(args.data_dir, args.dataset, args.rate, "train")
    texts, row = report_texts(config, split)
    kept = np.flatnonzero(row >= 0)
    np.save(scratch / "ecg.npy", split.ecg[kept])
    (scratch / "texts.json").write_text(json.dumps([texts[i] for i in row[kept]]))
    return {
        "data_dir": str(args.data_dir),
        "dataset": args.dataset,
        "rate": args.rate,
        "batch": args.batch,
        "text": args.text,
        "tower": str(tower.find_folder(args.text)),
        "lowercase": not tower.load(args.text).cased,
        "exported": str(scratch),
    }


def check_same(ours: dict, theirs: dict) -> None:
    """The sides must have the same network and the same text tower, or the ratio means nothing."""
    if ours["parameters"] != theirs["parameters"]:
        sys.exit(f"{ours['parameters']:,} parameters here, {theirs['parameters']:,} in PyTorch")
    difference = np.abs(np.subtract(ours["embedding"], theirs["embedding"])).max()
    if not difference < AGREE:
        sys.exit(f"the embeddings of the same report differ by {difference}")


def row(name: str, first: float, times: list[float], steps: int, epochs: int) -> dict:
    step = statistics.median(times)
    return {
        "side": name,
        "first_step_s": first,
        "step_s": step,
        "epoch_s": steps * step,
        "run_s": first + (epochs * steps - 1) * step,
    }


if __name__ == "__main__":
    main()
