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
from typing import Any

import jax

from benchmarks import report, step_jax, workload
from ecg_jax.planning import hlo

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
    parser.add_argument("--json", type=Path, help="a file for the rows")
    options = parser.parse_args()
    job = workload.job(options, options.length, options.batch)
    run = step_jax.Run(job)
    run.steps(run.length)
    with jax.profiler.trace(options.trace, create_perfetto_trace=True):
        run.steps(options.dispatches * run.length)
    steps, seconds = options.dispatches * run.length, cost(options.trace)
    rows = costliest(seconds, steps, run.compiled.as_text())
    step = 1000 * sum(seconds.values()) / steps
    report.show(rows, device=jax.devices()[0].device_kind, step_ms=step)
    if options.json:
        options.json.write_text(json.dumps({"step_ms": step, "rows": rows}))


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


def costliest(seconds: Counter[str], steps: int, program: str) -> list[dict[str, Any]]:
    """The operations that took longest, and what the program says of them: `ms` and `share` of a
    step, `MB` as the compiler laid it out (0 where it is called by others), `TB/s` that makes."""
    total, moved = sum(seconds.values()), hlo.by_kernel(program, steps=1)
    rows = []
    for name, value in seconds.most_common(SHOWN):
        line = re.search(rf"%{re.escape(name)} = (.*)", program)
        what = line[1] if line else ""
        source = re.search(r'op_name="([^"]*)"', what)
        each, size = value / steps, moved.get(name, 0.0)
        rows.append(
            {
                "instruction": name,
                "ms": 1000 * each,
                "share": value / total,
                "MB": size / 1e6,
                "TB/s": size / each / 1e12,
                "shape": re.sub(r"\{[^}]*\}", "", what.split(" ")[0]),
                "what": "/".join(source[1].split("/")[-4:]) if source else "",
            }
        )
    return rows


if __name__ == "__main__":
    main()
