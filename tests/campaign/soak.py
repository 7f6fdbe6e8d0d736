"""A run that is killed, stopped and failed at random, and started again as a scheduler would.

    PYTHONPATH=.:tests python tests/campaign/soak.py --seconds 1800 --out FOLDER

Each start has 1, 2 or 4 processes (`--processes`), with as many devices in all, and one fault, of
one process, at one step. At the end the run is finished without a fault, and compared with one that
nothing disturbed: the same steps, losses and validation figures, the same rows of results.json.
`FOLDER/soak.md` is the log.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

from campaign import trainer

ROOT = Path(__file__).parents[2]
DEVICES = 4  # of all processes together, so that the programs are alike
LIMIT_SECONDS = 900  # of one start; none may hang
# What each fault may end with; a process that is killed takes the others along in several ways.
STATUSES = {"stop": {75}, "error": {2}, "full": {2}, "slow": {0}, "fault": {2}}
ALONE = {"fault": {1}}  # a traceback, as Python ends
FAULT = "a fault of the campaign"
LINES = {"error": FAULT, "fault": FAULT, "full": "could not write a checkpoint"}


def command(data, folder, epochs, batch_size):
    fields = {
        "data_dir": data,
        "epochs": epochs,
        "batch_size": batch_size,
        "checkpoint_seconds": 0.0,
        "model.width": 8,
        "model.dim": 32,
        "model.convolution": "plain",  # the quicker one to start
        "seconds": 2.5,
        "evaluate.protocols": "('zero_shot',)",
        "evaluate.tasks": "('super',)",
        "evaluate.select": "super",
        "evaluate.draws": 20,
    }
    options = [f"--config.{name}={value}" for name, value in fields.items()]
    program = [sys.executable, "tests/campaign/trainer.py"]
    return [*program, "--config=configs/etp.py:demo", f"--workdir={folder}", *options]


def start(data, folder, *, processes, epochs, batch_size, fault=None):
    """One start, to its end: (status, that of each process, the error lines, seconds)."""
    launch = ["-m", "launch.local", f"--processes={processes}", f"--devices={DEVICES // processes}"]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *launch, "--", *command(data, folder, epochs, batch_size)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "FAULT": json.dumps(fault)},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )
    errors = re.findall(r"\berror: .*", done.stderr)  # another process's bar may stand before it
    each = " ".join(re.findall(r"process \d ended with (-?\d+)", done.stderr))
    return done.returncode, each or "0", errors, time.monotonic() - began


def rows(folder):
    """metrics.jsonl by step, but for how fast the run was."""
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    lines = [row for row in lines if "pace/step_seconds" not in row]
    return {(row["step"], "loss" in row): row for row in lines}


def differences(folder, whole, tolerance):
    """What a finished run has otherwise than the undisturbed one; nothing, if all is well."""
    found, wanted = rows(folder), rows(whole)
    differ = [] if found.keys() == wanted.keys() else ["the steps of metrics.jsonl"]
    differ += [
        f"{name} of step {key[0]}: {found[key][name]} and {row[name]}"
        for key, row in wanted.items()
        for name in ("loss", "validation/select")
        if name in row and key in found and abs(found[key][name] - row[name]) > tolerance
    ]
    figures = [
        [
            tuple(row[k] for k in ("task", "protocol", "encoder", "label", "metric", "rule"))
            for row in json.loads((where / "results.json").read_text())
        ]
        for where in (folder, whole)
    ]
    if figures[0] != figures[1]:
        differ.append("the rows of results.json")
    names = {p.name for p in folder.iterdir()} ^ {p.name for p in whole.iterdir()}
    return differ + [f"a file: {name}" for name in sorted(names)]


def soak(data, out, *, faults, epochs=6, batch_size=64, tolerance=2e-3, log=print):
    """Runs starts with (processes, fault) of `faults`, then to the end; returns what is wrong."""
    whole, folder, wrong = out / "undisturbed", out / "run", []
    size = {"epochs": epochs, "batch_size": batch_size}
    status, _, errors, _ = start(data, whole, processes=1, **size)
    if status:
        return [f"the undisturbed run ended with {status}: {errors}"]
    log("| start | processes | fault | status | seconds | error | last step |")
    log("|---|---|---|---|---|---|---|")
    for i, (processes, fault) in enumerate(faults, start=1):
        if (folder / "results.json").exists():  # finished: the next run begins
            wrong += differences(folder, whole, tolerance)
            folder = out / f"run{i}"
        fault = fault | {"process": fault["process"] % processes}
        status, each, errors, seconds = start(
            data, folder, processes=processes, fault=fault, **size
        )
        kind = fault["kind"]
        known = STATUSES | (ALONE if processes == 1 else {})
        allowed = known.get(kind, set(range(1, 256)) | {-9, -6}) | {0}
        if status not in allowed:
            wrong.append(f"start {i}, {kind}: status {status}, {errors}")
        if status == 2 and kind != "kill" and LINES.get(kind, "none") not in "".join(errors):
            wrong.append(f"start {i}, {kind}: another error: {errors}")
        steps = [step for step, _ in rows(folder)]
        log(
            f"| {i} | {processes} | {kind} on {fault['process']} at {fault['step']} | {each} | "
            f"{seconds:.0f} | {errors[0][7:90] if errors else ''} | {max(steps, default=0)} |"
        )
    status, _, errors, seconds = start(data, folder, processes=2, **size)
    log(f"| end | 2 | none | {status} | {seconds:.0f} | | {max(s for s, _ in rows(folder))} |")
    if status:
        return [*wrong, f"the last start ended with {status}: {errors}"]
    return wrong + differences(folder, whole, tolerance)


def drawn(seconds, seed, processes):
    """Faults at random, until the time is up."""
    rng, began = random.Random(seed), time.monotonic()
    while time.monotonic() - began < seconds:
        fault = {"kind": rng.choice(trainer.KINDS), "process": rng.randrange(4)}
        yield rng.choice(processes), fault | {"step": rng.randrange(1, 20)}


def prepared(folder):
    """400 simulated records, of which an epoch is five steps."""
    options = ["simulated", "--rate=100", "--records=400", f"--data_dir={folder}"]
    subprocess.run(
        [sys.executable, "-m", "tfds_builders.prepare", *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )
    return folder


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data_dir", type=Path, help="prepared simulated records at 100 Hz")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", default="1,2,4")
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    lines = []

    def log(line):
        print(line, flush=True)
        lines.append(line)
        (args.out / "soak.md").write_text("\n".join(lines) + "\n")

    counts = [int(n) for n in args.processes.split(",")]
    data = args.data_dir or prepared(args.out / "data")
    wrong = soak(data, args.out, faults=drawn(args.seconds, args.seed, counts), log=log)
    log("")
    log("\n".join(wrong) or "The finished runs are equal to the undisturbed one.")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
