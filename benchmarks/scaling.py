"""The training step on 1, 2, 4 and 8 devices, each count in a process of its own.

    python -m benchmarks.scaling                                   # simulated devices of a CPU
    python -m benchmarks.scaling --rate 500 --batch 2048 --devices 1,2,4,8    # GPUs

`--batch` is that of all devices together, or with `--weak` that of each. Simulated devices share
one machine's cores: they show what dividing the work costs, not what more hardware gains.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np

from benchmarks import report

RECORDS = 4  # batches of them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", default="1,2,4,8")
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--weak", action="store_true", help="--batch is that of each device")
    parser.add_argument("--width", type=int, default=64, help="of the network's first stage")
    parser.add_argument("--steps", type=int, default=5, help="timed calls, after two")
    parser.add_argument("--length", type=int, default=0, help="steps a call; 0: as train does")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure(args, args.child)))
        return
    rows = []
    for devices in map(int, args.devices.split(",")):
        command = [sys.executable, "-m", "benchmarks.scaling", "--child", str(devices)]
        done = subprocess.run([*command, *sys.argv[1:]], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"{devices} devices: failed with status {done.returncode}")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    for row in rows:
        speedup = row["ECG/s"] / rows[0]["ECG/s"]
        row["of first"] = speedup
        row["efficiency"] = speedup * rows[0]["devices"] / row["devices"]
    simulated = rows[0]["kind"] == "cpu"
    note = f"simulated devices on {os.cpu_count()} cores: overhead only" if simulated else ""
    report.show(rows, rate=args.rate, weak=args.weak, width=args.width, note=note)


def measure(args: argparse.Namespace, devices: int) -> dict:
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    from benchmarks.input import WIDTH, start_state
    from configs import etp
    from ecg_jax import methods
    from ecg_jax.data import resident
    from ecg_jax.runtime import malloc, parallel
    from ecg_jax.training import feed, optim
    from ecg_jax.training.step import dispatch_length, make_dispatch

    malloc.keep_freed()
    if len(jax.devices()) < devices:
        sys.exit(f"there are {len(jax.devices())} devices, not {devices}: name fewer in --devices")
    mesh = parallel.make_mesh(jax.devices()[:devices])
    batch = args.batch * (devices if args.weak else 1)
    config = etp.get_config(None)
    config.batch_size, config.rate, config.model.width = batch, args.rate, args.width
    config.model.dtype, config.shards = "auto", min(config.shards, batch)
    rng = np.random.default_rng(0)
    N = RECORDS * batch
    ecg = rng.normal(0, 300, (N, 10 * args.rate, 12)).astype(np.int16)
    rows, mask = np.arange(N, dtype=np.int32), np.ones((N, 12), bool)
    split = resident.put(mesh, ecg, mask, rows, shards=config.shards, seed=0)
    table = rng.normal(size=(N, WIDTH)).astype(np.float32)
    tables = jax.device_put(feed.Tables(table, rows, rows), parallel.replicated(mesh))
    data = feed.Data(split, tables)
    method, optimizer = methods.build(config), optim.build(config, RECORDS)
    dispatch = make_dispatch(config, method, optimizer, RECORDS)
    length = args.length or dispatch_length(config, 0, 32, method.platform)
    state, times = start_state(config, method, optimizer, mesh), []
    for _ in range(2 + args.steps):
        start = time.perf_counter()
        state, metrics = dispatch(state, data, length)
        jax.block_until_ready(metrics)
        times.append((time.perf_counter() - start) / length)
    step = statistics.median(times[2:])
    kind = jax.devices()[0].device_kind
    return {"devices": devices, "kind": kind, "batch": batch, "step_s": step, "ECG/s": batch / step}


if __name__ == "__main__":
    main()
