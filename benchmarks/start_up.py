"""Time to the first step of a configuration, with an empty compilation cache and with a full one.

    python -m benchmarks.start_up --length 1000 --batch 128

Each start is a new process. The time runs from its begin to the end of its first step.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import workload


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--length", type=int, default=1000, help="samples")
    parser.add_argument("--batch", type=int, default=128, help="records")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options = parser.parse_args()
    job = workload.job(options, options.length, options.batch)
    with tempfile.TemporaryDirectory() as cache:
        first, second = start(job, cache), start(job, cache)
    print(json.dumps({**job, "first": first, "second": second, "ratio": second / first}))
    print("| start | seconds to the first step |\n|---|---|")
    print(f"| first | {first:.1f} |\n| second | {second:.1f} ({second / first:.0%}) |")


def start(job: dict, cache: str) -> float:
    command = [sys.executable, "-m", "benchmarks.step_jax", json.dumps(job | {"measure": False})]
    begin = time.perf_counter()
    subprocess.run(
        command,
        input="1\n",
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"ECG_JAX_CACHE": cache},
    )
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
