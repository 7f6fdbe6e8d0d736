"""All that a machine with one GPU can say, in at most eight minutes: see `gpu.sh`.

    python -m benchmarks.gpu --out gpu
    python -m benchmarks.gpu --out gpu --small --device cpu     # the parts, on any machine

Each part is a process with a limit of its own; one that fails or runs too long is a line of the
table, and the others go on. `results.json` and `table.md` are written anew after each part.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
SECONDS = 470  # of all parts


class Part(NamedTuple):
    """A process that writes rows to its --json file."""

    name: str
    title: str
    command: list[str]
    seconds: float  # at most


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="a folder for the results")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--target", default="", help="of plan; default: the card that is there")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of all parts")
    parser.add_argument("--patience", type=float, default=1, help="all limits times so much")
    parser.add_argument("--only", default="", help="comma-separated names of parts")
    parser.add_argument("--small", action="store_true", help="sizes that a CPU manages")
    args = parser.parse_args()
    args.out = args.out.absolute()
    args.out.mkdir(parents=True, exist_ok=True)
    target = args.target or card()
    parts = [p for p in listed(args, target) if not args.only or p.name in args.only.split(",")]
    parts = [p._replace(seconds=p.seconds * args.patience) for p in parts]
    results: dict[str, Any] = {"machine": {"target": target, "python": sys.version.split()[0]}}
    results["parts"] = {p.name: {"title": p.title, "status": "not reached"} for p in parts}
    end = time.monotonic() + args.seconds * args.patience
    beside = [p for p in parts if p.name == "plan"]  # compiles on the CPU while the GPU is busy
    begun = [(p, start(p, args.out, args.device), time.monotonic()) for p in beside]
    for part in parts:
        if part in beside:
            continue
        left = end - time.monotonic()
        if left < 5:
            break
        began = time.monotonic()
        limit = min(part.seconds, left)
        results["parts"][part.name] |= finish(
            part, start(part, args.out, args.device), began, limit, args.out
        )
        write(args.out, results)
    for part, process, began in begun:
        left = max(1.0, min(part.seconds - (time.monotonic() - began), end - time.monotonic()))
        results["parts"][part.name] |= finish(part, process, began, left, args.out)
    write(args.out, results)
    print((args.out / "table.md").read_text())
    return 0 if all(p["status"] == "ok" for p in results["parts"].values()) else 1


def card() -> str:
    """The target that the machine's card is, by what its driver calls it; h100 if none is known."""
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.lower()
    except (OSError, subprocess.CalledProcessError):
        return "h100"
    return next((kind for kind in ("h200", "h100", "b200", "a100", "l4") if kind in name), "h100")


def listed(args: argparse.Namespace, target: str) -> list[Part]:
    """The parts, those first that others rest on."""
    lengths, batches = ((5000, 1000), (512, 128, 2048)) if not args.small else ((250,), (32,))
    length, dtype = lengths[0], "bfloat16" if args.device == "cuda" else "float32"
    where = ["--device", args.device, "--dtype", dtype]
    sized = ["--length", str(length), "--batch", "32" if args.small else "128"]
    few = ["--records", "160", "--epochs", "2"] if args.small else []
    module = "benchmarks.gpu_parts"
    peers = ["eager", "compile", "eager-nhwc"] if not args.small else ["eager"]
    parts = [
        Part("plan", f"what plan says of {target}", [module, "plan", *sized, *few], 150),
        Part(
            "equality",
            "first losses and gradients against the CPU",
            [module, "equality", *(["--methods", "etp,byol"] if args.small else [])],
            100,
        ),
        Part(
            "epochs",
            "epochs over resident records",
            [module, "epochs", *sized, *where, *few, "--seconds", "60"],
            100,
        ),
        Part("trace", "costliest operations", ["benchmarks.profile_step", *sized, *where], 60),
        Part(
            "convolutions",
            "forms of a convolution, ms",
            ["benchmarks.convolutions", *sized, *where[2:], "--rounds", "3"],
            60,
        ),
    ]
    parts[0].command.extend(["--target", target, "--dtype", dtype])
    parts[3].command.extend(["--trace", str(args.out / "trace"), "--dispatches", "1"])
    for length in lengths:
        for batch in batches:
            command = ["benchmarks.train_step", "--length", str(length), "--batch", str(batch)]
            command += [*where, "--peers", *peers, "--rounds", "3", "--seconds", "1"]
            title = f"train_step, 12 x {length:,}, batch {batch:,}"
            parts.append(Part(f"step_{length}_{batch}", title, command, 75))
    return parts


def start(part: Part, out: Path, device: str) -> subprocess.Popen:
    platforms = "cuda,cpu" if device == "cuda" else "cpu"
    file = out / f"{part.name}.json"
    file.unlink(missing_ok=True)
    with (out / f"{part.name}.log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *part.command, "--json", str(file)],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": platforms, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
            start_new_session=True,  # so that its own processes end with it
        )


def finish(
    part: Part, process: subprocess.Popen, began: float, seconds: float, out: Path
) -> dict[str, Any]:
    """Waits for a part, ends it after so many seconds, and says what came of it."""
    status = "ok"
    try:
        if code := process.wait(seconds):
            status = f"failed with status {code}"
    except subprocess.TimeoutExpired:
        status = f"ended after {seconds:,.0f} s"
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # and what it has started
    process.wait()
    result: dict[str, Any] = {"status": status, "seconds": time.monotonic() - began}
    try:
        result["result"] = json.loads((out / f"{part.name}.json").read_text())
    except (OSError, ValueError):
        lines = (out / f"{part.name}.log").read_text(errors="replace").strip().splitlines()
        result["log"] = lines[-12:]
        if status == "ok":
            result["status"] = "wrote no figures"
    return result


def write(out: Path, results: dict[str, Any]) -> None:
    (out / "results.json").write_text(json.dumps(results, indent=1))
    (out / "table.md").write_text(table(results))


def table(results: dict[str, Any]) -> str:
    """Markdown: one table with a line for each figure, and which parts there are."""
    lines = ["| part | what | figure |", "|---|---|---|"]
    for name, part in results["parts"].items():
        took = f", {part['seconds']:.0f} s" if "seconds" in part else ""
        lines.append(f"| **{name}** | {part['title']} | {part['status']}{took} |")
        for line in part.get("log", [])[-1:]:
            lines.append(f"| | last line of its log | {line.replace('|', '/')[:200]} |")
        if "result" in part:
            lines += [f"| | {what} | {figure} |" for what, figure in figures(name, part["result"])]
    planned = results["parts"].get("plan", {}).get("result")
    run = results["parts"].get("epochs", {}).get("result")
    if planned and run and run["peak_bytes"]:
        ratio = run["peak_bytes"] / planned["memory_bytes"]
        lines.append(f"| **memory** | peak over plan's figure | {ratio:.2f} |")
        share = run["records_per_second"] / planned["records_per_second_bound"]
        lines.append(f"| **bound** | records/s over plan's bound | {share:.0%} |")
    return "\n".join(lines) + "\n"


def figures(name: str, result: Any) -> list[tuple[str, str]]:
    """(what, figure) of a part's result."""
    if name == "plan":
        return [
            ("memory, GB", f"{result['memory_bytes'] / 1e9:.3f}"),
            (
                "MB a record, kernels",
                f"{result['bytes_per_record'] / 1e6:.1f}, {result['kernels']}",
            ),
            ("records/s at best", f"{result['records_per_second_bound']:,.0f}"),
        ]
    if name == "equality":
        return [
            (
                r["what"],
                r.get("error") or f"{r['difference']:.1e}{'' if r['equal'] else ' DIFFERS'}",
            )
            for r in result
        ]
    if name == "epochs":
        peak = result["peak_bytes"]
        return [
            (
                f"{result['epochs']:.0f} epochs of {result['records']:,} at {result['batch']}",
                f"{result['seconds']:.1f} s ({result['records_per_second']:,.0f} records/s)",
            ),
            ("start (compilation)", f"{result['start_seconds']:.1f} s"),
            ("50 epochs at this speed", f"{result['seconds_of_50_epochs']:.1f} s"),
            ("peak memory", f"{peak / 1e9:.3f} GB" if peak else "not told by this device"),
            ("the compiled program's", f"{result['compiled_bytes'] / 1e9:.3f} GB"),
        ]
    if name == "trace":
        rows = [("all operations of a step", f"{result['step_ms']:.2f} ms")]
        return rows + [
            (
                f"{r['instruction']} {r['shape']} {r['what']}".replace("|", "/"),
                f"{r['ms']:.3f} ms, {r['share']:.1%}, {r['MB']:.1f} MB, {r['TB/s']:.2f} TB/s",
            )
            for r in result["rows"]
        ]
    if name == "convolutions":
        return [
            (r["layer"], ", ".join(f"{k} {v:.3f}" for k, v in r.items() if k != "layer"))
            for r in result
        ]
    return [
        (
            r["side"],
            f"{r['records_per_second']:,.0f} records/s, {r['peak_memory_gb']:.2f} GB"
            + (f", {r['ratio']:.2f} of {r['best_peer']}" if "ratio" in r else ""),
        )
        for r in result
    ]


if __name__ == "__main__":
    sys.exit(main())
