"""A dataset at size: memory and time of preparing and streaming it, by the number of records.

    python -m benchmarks.at_scale                                 # 20,000 and 200,000 records, 5 GB
    python -m benchmarks.at_scale --records 2000,20000 --steps 50  # a small one
    python -m benchmarks.at_scale --beam "--direct_running_mode in_memory"

Each part is a process of its own, whose peak memory (VmHWM) is read at its end. Streaming is two
processes, each with one device; twice, the second time with the index that the first has left.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
BATCH, SHARDS, SEED = 512, 32, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", default="all", choices=("all", "prepare", "stream"))
    parser.add_argument("--records", default="20000,200000", help="how many, of each size")
    parser.add_argument("--texts", type=int, default=60_000, help="different reports, at most")
    parser.add_argument("--steps", type=int, default=100, help="batches that are streamed")
    parser.add_argument("--beam", help="Apache Beam's options; default: the process pool")
    parser.add_argument("--dir", type=Path, help="default: a temporary folder, removed at the end")
    for name, kind in (("coordinator", str), ("processes", int), ("process", int)):
        parser.add_argument(f"--{name}", type=kind, default=kind(), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part == "prepare":
        print(json.dumps(prepare(args)))
    elif args.part == "stream":
        if (row := stream(args)) is not None:
            print(json.dumps(row))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            measure(args, args.dir or Path(scratch))


def measure(args: argparse.Namespace, folder: Path) -> None:
    """Prints a row for each size, and how peak memory grows from the first to the last."""
    rows = []
    for count in map(int, args.records.split(",")):
        own = ["--records", str(count), "--dir", str(folder / str(count))]
        own += ["--texts", str(args.texts), "--steps", str(args.steps)]
        beam = [f"--beam={args.beam}"] if args.beam else []
        row = {"records": count} | call([module(), "prepare", *own, *beam])
        local = ["launch.local", "--processes", "2", "--devices", "1", "--"]
        for start in ("first", "second"):
            command = [sys.executable, "-m", module(), "stream", *own]
            found = call([*local, *command], ECG_JAX_LOCAL=str(folder / "cache"))
            row |= {f"{start} {name}": value for name, value in found.items()}
        rows.append(row)
        print(json.dumps(row, indent=1), flush=True)
    for name in ("prepare peak MB", "first stream peak MB", "second stream peak MB"):
        print(f"{name}: {rows[-1][name] / rows[0][name]:.2f} times the first size's")


def module() -> str:
    return "benchmarks.at_scale"


def call(words: list[str], **env: str) -> dict:
    """What a part prints in its last line."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def prepare(args: argparse.Namespace) -> dict:
    from benchmarks.at_scale_records import AtScale

    builder = AtScale(data_dir=args.dir, config="rate100")
    builder.source, builder.records, builder.texts = args.dir, int(args.records), args.texts
    if args.beam is not None:
        from tfds_builders import on_beam

        builder.beam = on_beam.options(args.beam)
    begun, busy = time.perf_counter(), time.process_time()
    builder.download_and_prepare()
    took, busy = time.perf_counter() - begun, time.process_time() - busy
    return {
        "prepare seconds": round(took, 1),
        "prepare CPU s per 1,000 records": round(1000 * busy / builder.records, 2),
        "prepare peak MB": peak(),
        "GB": round(builder.info.dataset_size / 1e9, 2),
        "sha256": builder.info.metadata["records_sha256"]["train"][:16],
    }


def stream(args: argparse.Namespace) -> dict | None:
    """The first process's figures; the shuffling is looked at there, too."""
    from ecg_jax.data import records
    from ecg_jax.data.stream import Stream
    from ecg_jax.runtime import hosts, parallel, process

    process.configure()
    hosts.start(hosts.Address(args.coordinator, args.processes, args.process))
    begun = time.perf_counter()
    split = records.load(args.dir, "at_scale", 100, "train", stored=True)
    started = time.perf_counter() - begun
    row = np.arange(len(split), dtype=np.int32)
    options = {"shards": SHARDS, "batch_size": BATCH, "seed": SEED}
    batches = Stream(parallel.make_mesh(), split.ecg, split.lead_mask, row, **options)
    middle = batches.steps // 2
    stop = min(middle + args.steps, batches.steps)
    begun, sums = time.perf_counter(), []
    for batch in batches.batches(middle, stop):
        sums.append(float(batch.ecg.astype("float32").sum()))
    took = time.perf_counter() - begun
    again = float(batches.batch(stop - 1).ecg.astype("float32").sum())
    if not hosts.first():
        return None
    drawn = np.concatenate([batches.rows(step) for step in range(batches.steps)])
    later = np.concatenate([batches.rows(batches.steps + step) for step in range(batches.steps)])
    return {
        "stream start s": round(started, 2),
        "stream records/s": round((stop - middle) * BATCH / took),
        "stream peak MB": peak(),
        "drawn once": len(set(drawn.tolist())) == len(drawn),
        "rank correlation with the stored order": round(correlation(drawn), 4),
        "and between epochs": round(rank_correlation(drawn, later), 4),
        "a batch again from the middle": again == sums[-1],
        "different reports": len(set(split.report)),
    }


def correlation(order: np.ndarray) -> float:
    """Spearman's, of what is drawn when with where it lies."""
    return float(np.corrcoef(np.arange(len(order)), np.argsort(np.argsort(order)))[0, 1])


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, of when two epochs draw the records that both draw."""
    _, a, b = np.intersect1d(one, other, return_indices=True)
    return float(np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1])


def peak() -> int:
    """This process's peak memory in MB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


if __name__ == "__main__":
    main()
