"""Input: building, loading, putting on the device, streaming, and how long a step waits for it.

    python -m benchmarks.input                                     # simulated records, small
    python -m benchmarks.input --rate 500 --records 2000 --batch 128 --steps 20
    python -m benchmarks.input --dataset ptb_xl --data_dir data    # records prepared already

The training step is that of `configs/etp.py`, with random vectors in place of report embeddings.
The stream reads in threads beside the step, whose cores it shares on a CPU: compare the two rows of
steps as well as the share of waiting.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from benchmarks import report
from configs import etp
from ecg_jax import methods
from ecg_jax.data import records, resident
from ecg_jax.data.stream import Stream
from ecg_jax.models.resnet1d import activations
from ecg_jax.run.experiment import blank
from ecg_jax.runtime import malloc, parallel
from ecg_jax.training import feed, optim
from ecg_jax.training.state import TrainState
from ecg_jax.training.step import make_dispatch
from tfds_builders import prepare

WIDTH = 384  # of the vectors that stand for reports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="simulated")
    parser.add_argument("--data_dir", type=Path, help="prepared records; default: simulate some")
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--records", type=int, default=400, help="to simulate")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=12, help="of each kind and round, after two")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--dtype", default="auto")
    args = parser.parse_args()
    malloc.keep_freed()
    with tempfile.TemporaryDirectory() as scratch:
        rows = []
        if args.data_dir is None:
            args.data_dir = Path(scratch)
            rows.append(build(args))
        loaded, load_row = load(args)
        rows.append(load_row)
        rows += steps(args, loaded)
    dtype = activations(args.dtype, parallel.platform()).name
    device = jax.devices()[0].device_kind
    size = {name: getattr(args, name) for name in ("dataset", "rate", "batch")}
    report.show(rows, device=device, dtype=dtype, **size)


def row(stage: str, count: int, seconds: float, ecg: np.ndarray) -> dict:
    size = count * ecg.shape[1] * ecg.shape[2] * 2
    return {
        "stage": stage,
        "records": count,
        "seconds": seconds,
        "records/s": count / seconds,
        "MB/s": size / seconds / 1e6,
    }


def build(args: argparse.Namespace) -> dict:
    """Simulating and writing; the simulation itself takes most of it."""
    start = time.perf_counter()
    options = ["--rate", str(args.rate), "--records", str(args.records)]
    prepare.main(["simulated", *options, "--data_dir", str(args.data_dir)])
    seconds = time.perf_counter() - start
    signals = np.empty((0, 10 * args.rate, 12), np.int16)
    return row("build (simulate, write)", args.records, seconds, signals)


def load(args: argparse.Namespace) -> tuple[records.Records, dict]:
    start = time.perf_counter()
    loaded = records.load(args.data_dir, args.dataset, args.rate, "train")
    seconds = time.perf_counter() - start
    return loaded, row("load into memory", len(loaded), seconds, loaded.ecg)


def steps(args: argparse.Namespace, loaded: records.Records) -> list[dict]:
    """Putting, streaming alone, and steps on both."""
    config = etp.get_config(None)
    config.batch_size, config.rate, config.model.dtype = args.batch, args.rate, args.dtype
    config.shards = min(config.shards, args.batch)
    mesh, N = parallel.make_mesh(), len(loaded)
    stored = records.load(args.data_dir, args.dataset, args.rate, "train", stored=True)
    options = {"shards": config.shards, "seed": 0}
    text = np.arange(N, dtype=np.int32)

    start = time.perf_counter()
    split = resident.put(mesh, loaded.ecg, loaded.lead_mask, text, **options)
    jax.block_until_ready(split)
    rows = [row("put on the device", N, time.perf_counter() - start, loaded.ecg)]

    stream = Stream(mesh, stored.ecg, stored.lead_mask, text, batch_size=args.batch, **options)
    stream.batch(0)  # opens the shards
    start = time.perf_counter()
    jax.block_until_ready(list(stream.batches(1, args.steps + 1)))
    read = args.steps * args.batch
    rows.append(row("stream, no step", read, time.perf_counter() - start, loaded.ecg))

    table = np.random.default_rng(0).normal(size=(N, WIDTH)).astype(np.float32)
    tables = jax.device_put(feed.Tables(table, text, text), parallel.replicated(mesh))
    method, optimizer = methods.build(config), optim.build(config, stream.steps)
    dispatch = make_dispatch(config, method, optimizer, stream.steps)
    times = {"resident": [], "stream": []}
    for _ in range(args.rounds):
        for name, data in {"resident": split, "stream": stream}.items():
            state = start_state(config, method, optimizer, mesh)
            fed = feed.feeder(feed.Data(data, tables), 0, args.steps + 2)
            times[name] += timed(dispatch, state, fed, args.steps)
    for name, pairs in times.items():
        total, waiting = (sum(seconds) for seconds in zip(*pairs, strict=True))
        median = statistics.median(seconds for seconds, _ in pairs)
        share = {"waiting %": 100 * waiting / total}
        rows.append(row(f"step, {name}", args.batch, median, loaded.ecg) | share)
    return rows


def start_state(config, method: methods.Method, optimizer, mesh) -> TrainState:
    def start(key: jax.Array) -> TrainState:
        params, state = method.init(key, blank(10 * config.rate, WIDTH))
        return TrainState(jax.numpy.int32(0), params, state, optimizer.init(params))

    return jax.jit(start, out_shardings=parallel.replicated(mesh))(jax.random.key(0))


def timed(
    dispatch: Callable, state: TrainState, fed: Iterator[feed.Data], steps: int
) -> list[tuple[float, float]]:
    """(seconds, seconds of them spent waiting for a batch) of every step after two."""
    pairs = []
    for _ in range(2 + steps):
        start = time.perf_counter()
        data = next(fed)
        waited = time.perf_counter() - start
        state, metrics = dispatch(state, data, 1)
        jax.block_until_ready(metrics)
        pairs.append((time.perf_counter() - start, waited))
    return pairs[2:]


if __name__ == "__main__":
    main()
