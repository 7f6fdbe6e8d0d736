"""One training step of ETP, ours against PyTorch's, in alternating rounds on the same device.

    python -m benchmarks.train_step --length 1000 5000 --batch 32 128
    python -m benchmarks.train_step --device cuda --dtype bfloat16 --length 5000 --batch 128 2048

Both sides train the same ResNet18-1D from the same weights on the same batches, resident on the
device as int16, with symmetric InfoNCE and AdamW. Each lives in a process of its own, so they
share no threads; while one runs its round, the others wait for their turn and use no processor.
PyTorch runs eager and compiled and, where `--peers` names them, with 2-D convolutions in
channels-last layout ("nhwc"); `ratio` is against the fastest of those that run. The table comes
last; the JSON above it has every round. PyTorch may live in another environment: --torch-python.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import workload

PEERS = ("eager", "compile", "eager-nhwc", "compile-nhwc")
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # of the first step's loss, relative


class Side:
    """A process that trains on command."""

    def __init__(self, python: str, module: str, job: dict):
        self.process = subprocess.Popen(
            [python, "-m", module, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
            env=os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},  # the sides share a GPU
        )
        self.facts: dict = {}
        self.rounds: list[dict] = []

    def ready(self) -> None:
        """Waits until the side has begun: all sides may begin together."""
        self.facts = self._read()

    def run(self, steps: int) -> dict:
        print(steps, file=self.process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self.process.args[:3])} ended without a result")
        return json.loads(line)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--length", type=int, nargs="+", default=[1000, 5000], help="samples")
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 128], help="records")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=["eager", "compile"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of one side in one round")
    parser.add_argument("--peak-tflops", type=float, help="of the device; measured if not given")
    parser.add_argument("--torch-python", default=sys.executable)
    parser.add_argument("--json", type=Path, help="a file for the rows")
    options = parser.parse_args()
    rows = []
    for length in options.length:
        for batch in options.batch:
            rows += cell(options, length, batch)
    print(json.dumps(rows, indent=1))
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows))


def cell(options: argparse.Namespace, length: int, batch: int) -> list[dict]:
    """One row per side for one length and batch."""
    job = workload.job(options, length, batch)
    with tempfile.TemporaryDirectory() as folder:
        job["weights"] = folder
        sides = {"ecg_jax": Side(sys.executable, "benchmarks.step_jax", job)}
        together = options.device != "cpu"  # on a CPU they would disturb each other's measurements
        for peer in options.peers:
            if not together:
                list(sides.values())[-1].ready()
            job["mode"] = peer
            sides[peer] = Side(options.torch_python, "benchmarks.step_torch", job)
        for side in sides.values():
            if not side.facts:
                side.ready()
    try:
        steps = {name: warm_up(side, options.seconds) for name, side in sides.items()}
        compare({name: side.first_loss for name, side in sides.items()}, options.dtype)
        for i in range(options.rounds):
            turn = list(sides) if i % 2 == 0 else list(sides)[::-1]
            for name in turn:
                sides[name].rounds.append(sides[name].run(steps[name]))
                print(f"{length} x {batch} round {i + 1} {name}", file=sys.stderr)
    finally:
        for side in sides.values():
            side.close()
    return summarise(sides, options, length, batch)


def warm_up(side: Side, seconds: float) -> int:
    """Compiles, and returns how many steps take so many seconds (two at least)."""
    side.first_loss = side.run(1)["losses"][0]
    took = side.run(side.facts.get("steps_per_dispatch", 2))
    return max(2, round(seconds * took["steps"] / took["seconds"]))


def compare(losses: dict[str, float], dtype: str) -> None:
    """Stops if the sides do not train the same thing."""
    ours = losses["ecg_jax"]
    for name, loss in losses.items():
        if abs(loss - ours) > TOLERANCE[dtype] * abs(ours):
            raise SystemExit(f"the first loss of {name} is {loss}, ours is {ours}")


def summarise(
    sides: dict[str, Side], options: argparse.Namespace, length: int, batch: int
) -> list[dict]:
    """Medians over rounds; each round's ratio is against the peer that is fastest over all."""
    per_step = {
        name: [r["seconds"] / r["steps"] for r in side.rounds] for name, side in sides.items()
    }
    median = {name: statistics.median(times) for name, times in per_step.items()}
    best = min(options.peers, key=lambda peer: median[peer])
    ratios = [b / a for a, b in zip(per_step["ecg_jax"], per_step[best], strict=True)]
    facts = sides["ecg_jax"].facts
    measured = max(side.facts["peak_flops"] for side in sides.values())
    peak = options.peak_tflops * 1e12 if options.peak_tflops else measured
    flops = workload.flops_per_record(length) * batch
    floor_arithmetic, floor_memory = flops / peak, facts["bytes_per_step"] / facts["peak_bandwidth"]
    rows = []
    for name, side in sides.items():
        row = {
            "device": facts["device"],
            "dtype": options.dtype,
            "length": length,
            "batch": batch,
            "side": name,
            "version": side.facts["version"],
            "seconds_per_step": median[name],
            "records_per_second": batch / median[name],
            "ptb_xl_50_epochs_seconds": 50 * (17_418 // batch) * median[name],
            "flop_utilisation": flops / median[name] / peak,
            "peak_tflops": peak / 1e12,
            "peak_memory_gb": side.rounds[-1]["peak_memory"] / 1e9,
            "cpu_seconds_per_step": statistics.median(
                r["cpu_seconds"] / r["steps"] for r in side.rounds
            ),
            "rounds": per_step[name],
        }
        if name == "ecg_jax":
            row |= {
                "best_peer": best,
                "ratio": statistics.median(ratios),
                "ratio_least": min(ratios),
                "gb_per_step": facts["bytes_per_step"] / 1e9,
                "bandwidth_gb_per_second": facts["peak_bandwidth"] / 1e9,
                "roofline_arithmetic_seconds": floor_arithmetic,
                "roofline_memory_seconds": floor_memory,
                "temporary_gb": facts["temporary_bytes"] / 1e9,
                "steps_per_dispatch": facts["steps_per_dispatch"],
            }
        rows.append(row)
    return rows


def table(rows: list[dict]) -> str:
    """Markdown."""
    head = "length | batch | side | ECG/s | ratio (least) | MFU | peak GB | GB moved | roofline"
    lines = [f"| {head} |", "|" + "---|" * 9]
    for r in rows:
        ratio = moved = roof = ""
        if "ratio" in r:
            ratio = f"{r['ratio']:.2f} ({r['ratio_least']:.2f}) of {r['best_peer']}"
            moved = f"{r['gb_per_step']:.2f}"
            floor = max(r["roofline_arithmetic_seconds"], r["roofline_memory_seconds"])
            roof = f"{floor / r['seconds_per_step']:.0%}"
        lines.append(
            f"| {r['length']:,} | {r['batch']:,} | {r['side']} | {r['records_per_second']:,.1f} "
            f"| {ratio} | {r['flop_utilisation']:.0%} | {r['peak_memory_gb']:.2f} | {moved} "
            f"| {roof} |"
        )
    device, peak = rows[0]["device"], rows[0]["peak_tflops"]
    versions = ", ".join(sorted({r["version"] for r in rows}))
    return "\n".join([*lines, "", f"{device}, {rows[0]['dtype']}, {peak:.3g} TFLOP/s; {versions}"])


if __name__ == "__main__":
    main()
