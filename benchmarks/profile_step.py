"""A trace of training steps, and the ten operations that cost most.

    python -m benchmarks.profile_step --length 1000 --batch 128 --trace traces

The trace opens in Perfetto (ui.perfetto.dev) or XProf. Times are of one step, summed over threads
or streams; an operation is an HLO instruction of the compiled step, with what made it.
"""

import argparse
import gzip
import json
import re
from collections import Counter
from pathlib import Path

import jax

from benchmarks import step_jax, workload

SHOWN = 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--length", type=int, default=1000, help="samples")
    parser.add_argument("--batch", type=int, default=128, help="records")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--dispatches", type=int, default=3)
    parser.add_argument("--trace", type=Path, default=Path("traces"))
    options = parser.parse_args()
    job = workload.job(options, options.length, options.batch)
    run = step_jax.Run(job)
    run.steps(run.length)
    with jax.profiler.trace(options.trace, create_perfetto_trace=True):
        run.steps(options.dispatches * run.length)
    print(table(cost(options.trace), options.dispatches * run.length, run.compiled.as_text()))


def cost(folder: Path) -> Counter[str]:
    """Seconds per HLO instruction in the newest trace of a folder."""
    files = sorted(folder.rglob("perfetto_trace.json.gz"), key=lambda p: p.stat().st_mtime)
    with gzip.open(files[-1]) as file:
        events = json.load(file)["traceEvents"]
    seconds: Counter[str] = Counter()
    for event in events:
        name = event.get("args", {}).get("hlo_op") or ""
        if event.get("ph") == "X" and name:
            seconds[name] += event["dur"] / 1e6
    return seconds


def table(seconds: Counter[str], steps: int, program: str) -> str:
    """Markdown: milliseconds in a step, share, instruction, and the line of the program."""
    total = sum(seconds.values())
    lines = ["| ms | share | instruction | what |", "|---|---|---|---|"]
    for name, value in seconds.most_common(SHOWN):
        line = re.search(rf"%{re.escape(name)} = (.*)", program)
        what = line[1] if line else ""
        shape = re.sub(r"\{[^}]*\}", "", what.split(" ")[0])
        source = re.search(r'op_name="([^"]*)"', what)
        source = "/".join(source[1].split("/")[-4:]) if source else ""
        lines.append(
            f"| {1000 * value / steps:.1f} | {value / total:.1%} | {name} | {shape} {source} |"
        )
    return "\n".join([*lines, "", f"{1000 * total / steps:.0f} ms of operations in a step"])


if __name__ == "__main__":
    main()
