"""The ecg_jax side of `train_step.py`: `make_dispatch` with resident data, on command.

Each line read is a number of steps to run; each line written is what they took, as JSON.
"""

import json
import resource
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks import workload
from configs import etp
from ecg_jax import methods
from ecg_jax.data import resident
from ecg_jax.planning import hlo
from ecg_jax.run.experiment import blank
from ecg_jax.runtime import parallel, process
from ecg_jax.training import feed, optim
from ecg_jax.training.state import TrainState
from ecg_jax.training.step import dispatch_length, make_dispatch


def main() -> None:
    job = json.loads(sys.argv[1])
    run = Run(job)
    print(json.dumps(run.facts() if job.get("measure", True) else {}), flush=True)
    for line in sys.stdin:
        print(json.dumps(run.steps(int(line))), flush=True)


def config(job: dict) -> ConfigDict:
    """ETP as it is trained, without augmentation, clipping and schedule."""
    c = etp.get_config(None)
    c.batch_size = job["batch"]
    c.rate, c.seconds = 100, job["length"] / 100
    c.model.dtype = job["dtype"]
    c.model.same_report = False
    c.augment = ()
    c.optimizer.clip = 0.0
    c.optimizer.schedule = "constant"
    c.optimizer.warmup_epochs = 0
    c.optimizer.learning_rate = workload.LEARNING_RATE
    c.optimizer.weight_decay = workload.WEIGHT_DECAY
    return c


class Run:
    """A training run on one device, as `train.train` makes it. Record i has text i."""

    def __init__(self, job: dict):
        process.configure()
        self.config = config(job)
        mesh = parallel.make_mesh(jax.devices()[:1])
        everywhere = parallel.replicated(mesh)
        ecg, text = workload.records(job["length"], job["records"])
        N = len(ecg)
        there, row = np.ones((N, 12), bool), np.arange(N, dtype=np.int32)
        split = resident.put(mesh, ecg, there, row, shards=self.config.shards, seed=0)
        tables = feed.Tables(text, row, row)
        self.data = feed.Data(split, jax.device_put(tables, everywhere))
        self.epoch = resident.steps_per_epoch(N, self.config.batch_size, self.config.shards)
        method, optimizer = methods.build(self.config), optim.build(self.config, self.epoch)

        def start(key: jax.Array) -> TrainState:
            params, state = method.init(key, blank(job["length"], text.shape[1]))
            return TrainState(jnp.int32(0), params, state, optimizer.init(params))

        self.state = jax.jit(start, out_shardings=everywhere)(jax.random.key(0))
        dispatch = make_dispatch(self.config, method, optimizer, self.epoch)
        self.length = dispatch_length(self.config, 0, self.epoch, method.platform)
        if "weights" in job:  # the peers start while this compiles
            self.export(Path(job["weights"]))
        start = time.perf_counter()
        self.compiled = dispatch.lower(self.state, self.data, self.length).compile()
        self.compile_seconds = time.perf_counter() - start

    def steps(self, number: int) -> dict:
        """Runs so many steps, rounded up to whole dispatches, and waits for the last."""
        losses, start, cpu = [], time.perf_counter(), time.process_time()
        for _ in range(-(-number // self.length)):
            self.state, metrics = self.compiled(self.state, self.data)
            losses.append(metrics["loss"])
        losses = np.concatenate([np.asarray(loss) for loss in losses])
        return {
            "steps": len(losses),
            "seconds": time.perf_counter() - start,
            "cpu_seconds": time.process_time() - cpu,
            "losses": losses.tolist(),
            "peak_memory": peak_memory(),
        }

    def export(self, folder: Path) -> None:
        """The first weights and which records the first batches hold, for the peer."""
        leaves = jax.tree_util.tree_flatten_with_path(self.state.params)[0]
        weights = {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in leaves}
        c = self.config
        rows = [
            resident.draw(self.data.split, c.seed, jnp.int32(i), self.epoch, c.batch_size).row
            for i in range(self.epoch)
        ]
        with (folder / "part").open("wb") as file:  # a peer that waits must not find half of it
            np.savez(file, batches=np.stack(rows), **weights)
        (folder / "part").rename(folder / "start.npz")

    def facts(self) -> dict:
        flops, bandwidth = measure(self.config.model.dtype)
        return {
            "version": f"jax {jax.__version__}",
            "device": jax.devices()[0].device_kind,
            "steps_per_dispatch": self.length,
            "bytes_per_step": hlo.count(self.compiled.as_text(), steps=self.length).bytes,
            "compile_seconds": self.compile_seconds,
            "temporary_bytes": self.compiled.memory_analysis().temp_size_in_bytes,
            "peak_flops": flops,
            "peak_bandwidth": bandwidth,
        }


def measure(dtype: str) -> tuple[float, float]:
    """FLOP/s of a large matrix product in `dtype`, and bytes/s of an update in place."""
    cpu = jax.default_backend() == "cpu"
    n = 2048 if cpu else 8192
    a = jnp.ones((n, n), dtype)
    x = jnp.ones(1 << (26 if cpu else 28), jnp.float32)
    product = jax.jit(jnp.matmul)
    update = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = jax.block_until_ready((product(a, a), update(x)))[1]
    flops, bandwidth = 0.0, 0.0
    for _ in range(10):
        start = time.perf_counter()
        jax.block_until_ready(product(a, a))
        flops = max(flops, 2 * n**3 / (time.perf_counter() - start))
        start = time.perf_counter()
        x = jax.block_until_ready(update(x))
        bandwidth = max(bandwidth, 2 * x.nbytes / (time.perf_counter() - start))
    return flops, bandwidth


def peak_memory() -> int:
    """Bytes: the device's peak, or on a CPU the process's."""
    stats = jax.devices()[0].memory_stats() or {}
    return (
        stats.get("peak_bytes_in_use") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )


if __name__ == "__main__":
    main()
