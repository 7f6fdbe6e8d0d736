"""Trains a method.

    python -m ecg_jax.train --config FILE[:ARGS] --workdir DIR [--config.FIELD=VALUE]

Order of operations: read the config; open and check the data; claim the workdir; restore or
initialise; then dispatch a few steps in one jitted call, whose metrics are read while the next one
runs; validate and save at the ends of epochs; evaluate. The same command resumes a stopped run.
"""

import functools
import itertools
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from ecg_jax import cache, evaluate, hosts, memory, optim, parallel, workdir
from ecg_jax import config as config_lib
from ecg_jax.checkpoint import Checkpoints
from ecg_jax.config import Config
from ecg_jax.data import normalize, records, resident
from ecg_jax.data.records import check_disjoint
from ecg_jax.data.stream import Stream
from ecg_jax.errors import UserError, run_main
from ecg_jax.evaluation.validator import Validator
from ecg_jax.experiment import Experiment, open_experiment, report_texts
from ecg_jax.methods import Method, View
from ecg_jax.progress import NonFiniteError, Progress

Tree = Any
# Several processes that have been stopped end with EX_TEMPFAIL: to the schedulers that start them,
# 0 would be the end of the job.
STOPPED = 75


@flax.struct.dataclass
class TrainState:
    """All that a run goes on from; `step` int32 counts the updates made.

    `average` is (params, method) as evaluation takes them: a running mean over the updates, or None
    where `config.average` is 0 and the last ones are taken.
    """

    step: jax.Array
    params: Tree
    method: Tree
    optimizer: optax.OptState
    average: Tree = None

    def evaluated(self) -> tuple[Tree, Tree]:
        return self.average or (self.params, self.method)


class Data(NamedTuple):
    """The training split, on the devices or on disk, or the one batch of a streamed step; and the
    table [M, F] of the embeddings of the split's distinct reports."""

    split: resident.Split | Stream | resident.Batch
    texts: jax.Array


def main() -> int:
    line = config_lib.parse(sys.argv, __doc__ or "")
    configure(cache.folder("xla"))
    hosts.start(line.address)
    finished = train(line.config, line.workdir)
    return 0 if finished or jax.process_count() == 1 else STOPPED


def configure(compilations: Path) -> None:
    """Keeps compiled programs for the next start, and freed memory for the next step."""
    memory.keep_freed()
    jax.config.update("jax_compilation_cache_dir", str(compilations))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def train(config: Config, folder: Path, *, evaluated: bool = True) -> bool:
    """Trains to the end and (if `evaluated`) evaluates, or saves and returns on SIGTERM; whether it
    is finished.

    Raises:
      UserError: wrong input, a loss that is not finite, a disk that is full.
    """
    stop = Stop()
    experiment = open_together(config)
    data, steps = load_data(experiment)
    optimizer = optim.build(config, steps)
    dispatch = make_dispatch(config, experiment.method, optimizer, steps)
    validate = Validator(experiment)
    workdir.claim(folder, experiment)

    state, best = init(experiment, optimizer), -np.inf
    last_saves = Checkpoints(folder / "checkpoints" / "last", keep=2)
    best_saves = Checkpoints(folder / "checkpoints" / "best", keep=1)
    if restored := last_saves.restore(state):
        step, state, notes = restored
        best = notes["best"]
        print(f"resumed at step {step:,}")
    print(parameter_counts(experiment, state.params))

    step, total = int(state.step), config.epochs * steps
    feed = feeder(data, step, total)
    saved_step, saved_time = step, time.monotonic()
    progress = Progress(folder, config, start=step, total=total)
    try:
        stop.training = True
        while step < total and not stop.at(step):
            length = dispatch_length(config, step, steps)
            state, metrics = dispatch(state, next(feed), length)
            progress.steps(step, metrics)
            step += length
            if step % steps:
                continue
            if (step // steps) % config.eval_every == 0 or step == total:
                progress.flush()
                scores = hosts.from_first(validate(*state.evaluated()))
                progress.scores(step, scores)
                if scores["select"] > best:
                    best = scores["select"]
                    best_saves.save(step, evaluate.frozen(*state.evaluated()), scores)
            due = time.monotonic() - saved_time > config.checkpoint_seconds
            if step < total and hosts.from_first(due):
                progress.flush()
                best_saves.wait()  # the state names the best one, which must be there by then
                last_saves.save(step, state, {"best": best})
                saved_step, saved_time = step, time.monotonic()
        progress.flush()
    except NonFiniteError as error:
        step = int(state.step)
        last_saves.save(step, state, {"best": best})
        last_saves.wait()
        raise UserError(
            f"{error} in the update after step {step:,}: the state at step {step} is saved in "
            f"{last_saves.folder}; in another --workdir try a lower "
            "--config.optimizer.learning_rate, or --config.optimizer.clip=1.0"
        ) from error
    finally:
        progress.close()
    best_saves.close()
    if step > saved_step or step == 0:
        last_saves.save(step, state, {"best": best})
    last_saves.close()
    stop.training = False
    if stop.asked:
        print(f"stopped by SIGTERM at step {step:,}: the same command goes on from here")
        return False
    if evaluated:
        evaluate.evaluate(experiment, folder)
    return True


class Stop:
    """SIGTERM, as schedulers send it before they take a machine back.

    While updates are made it is noted in `asked`, so that the state can be saved. Before and after
    there is nothing to save: a process that is alone ends at once, with status 0.
    """

    def __init__(self):
        self.training = False
        self._preemption = hosts.Preemption()
        alone = jax.process_count() == 1  # several leave the signal to JAX
        if alone and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._note)

    def _note(self, *_: object) -> None:
        self._preemption.note()
        if not self.training:
            print("stopped by SIGTERM: the same command goes on from here")
            sys.exit(0)

    @property
    def asked(self) -> bool:
        return self._preemption.asked

    def at(self, step: int) -> bool:
        """Whether to stop at this step, which all processes answer alike."""
        return self._preemption.at(step)


def open_together(config: Config) -> Experiment:
    """The experiment, once all processes have the same config, software and records.

    Raises:
      UserError: they do not; or what one of them lacks or cannot hold.
    """
    workdir.check_hosts(config)
    experiment = hosts.together(lambda: open_experiment(config))
    hosts.together(lambda: check_memory(experiment))
    check_disjoint(experiment.train, experiment.validation)
    return experiment


def check_memory(experiment: Experiment) -> None:
    """Raises a UserError if a split that is to be resident does not fit; see `resident`."""
    c = experiment.config
    if not c.stream:
        size = records.signal_bytes(c.data_dir, c.dataset, c.rate, "train", seconds=c.seconds)
        resident.check_memory(experiment.mesh, size, f"{c.dataset} train")


def load_data(experiment: Experiment) -> tuple[Data, int]:
    """The training pairs, on the mesh or on disk, and the number of steps in an epoch.

    Raises:
      UserError: see `report_texts` and `resident`.
    """
    config, train = experiment.config, experiment.train
    texts, row = report_texts(config, train)
    if dropped := int((row < 0).sum()):
        print(f"{dropped} of {len(train):,} training records have no report text: left out")
        train, row = train.take(np.flatnonzero(row >= 0)), row[row >= 0]
    if config.text.shuffle:
        row = np.random.default_rng(config.seed).permutation(row)
    steps = resident.steps_per_epoch(len(train), config.batch_size, config.shards)
    table = hosts.from_first(experiment.tower.embed(texts, template=config.text.template))
    pairs = (experiment.mesh, train.ecg, train.lead_mask, row)
    if config.stream:
        split = Stream(*pairs, shards=config.shards, batch_size=config.batch_size, seed=config.seed)
    else:
        put = functools.partial(resident.put, *pairs, shards=config.shards, seed=config.seed)
        split = hosts.together(put)
    return Data(split, parallel.put(table, parallel.replicated(experiment.mesh))), steps


def feeder(data: Data, step: int, total: int) -> Iterator[Data]:
    """What each call of the dispatch from `step` on is given."""
    if isinstance(data.split, Stream):
        return (Data(batch, data.texts) for batch in data.split.batches(step, total))
    return itertools.repeat(data)


def init(experiment: Experiment, optimizer: optax.GradientTransformation) -> TrainState:
    """The state at step 0, replicated over the mesh."""
    params, method = experiment.init(jax.random.key(experiment.config.seed))
    sharding = parallel.replicated(experiment.mesh)
    shapes = jax.eval_shape(optimizer.init, params)
    layout = optimizer_layout(experiment.config, shapes, experiment.mesh.devices.size)
    layout = jax.tree.map(lambda spec: NamedSharding(experiment.mesh, spec), layout)
    moments = jax.jit(optimizer.init, out_shardings=layout)(params)
    average = jax.tree.map(jnp.copy, (params, method)) if experiment.config.average else None
    return TrainState(jax.device_put(jnp.int32(0), sharding), params, method, moments, average)


def optimizer_layout(config: Config, state: optax.OptState, devices: int) -> Tree:
    """How each array of the optimiser's state lies on the mesh: in copies, or in parts (ZeRO,
    Rajbhandari et al. 2020, stage 1)."""
    parts = devices if config.parallel.shard_optimizer else 1
    return jax.tree.map(lambda x: parallel.spread(x, parts), state)


def make_dispatch(
    config: Config, method: Method, optimizer: optax.GradientTransformation, steps: int
) -> Callable[[TrainState, Data, int], tuple[TrainState, dict[str, jax.Array]]]:
    """`dispatch(state, data, length)` makes `length` updates in one call.

    It returns the new state (the old one's memory is reused) and each step's metrics, [length].
    An update whose loss or gradient is not finite is not made, and the state stays at its step.
    """

    def view(data: Data, step: jax.Array) -> View:
        batch = data.split
        if isinstance(batch, resident.Split):
            batch = resident.draw(batch, config.seed, step, steps, config.batch_size)
        assert isinstance(batch, resident.Batch)  # a stream is fed batch by batch
        ecg = normalize.normalize(batch.ecg, batch.lead_mask, config.normalize)
        return View(ecg, batch.lead_mask, data.texts[batch.text], batch.text)

    def update(data: Data, state: TrainState, _: None) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed + 1), state.step)
        grad = jax.value_and_grad(method.loss, has_aux=True)
        (loss, (new_method, metrics)), gradient = grad(
            state.params, state.method, view(data, state.step), key
        )
        norm = optax.tree.norm(gradient)
        updates, new_optimizer = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        if method.after_update is not None:
            new_method = method.after_update(params, new_method)
        average = optim.running_mean(
            config.average, state.step, state.average, (params, new_method)
        )
        new = TrainState(state.step + 1, params, new_method, new_optimizer, average)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        state = jax.lax.with_sharding_constraint(state, layout(state))
        return state, {"loss": loss, "gradient_norm": norm, **metrics}

    def layout(state: TrainState) -> TrainState:
        devices = jax.sharding.get_abstract_mesh().size
        copies = jax.tree.map(lambda _: PartitionSpec(), state)
        return copies.replace(optimizer=optimizer_layout(config, state.optimizer, devices))

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def dispatch(state: TrainState, data: Data, length: int):
        with parallel.mesh_of(state.step):
            if jax.default_backend() != "cpu":
                return jax.lax.scan(functools.partial(update, data), state, length=length)
            # XLA's CPU backend brings only the entry computation's convolutions into the form that
            # its fast kernels take; a gradient convolution in a loop's body runs 50 times slower.
            rows = []
            for _ in range(length):
                state, metrics = update(data, state, None)
                rows.append(metrics)
        return state, jax.tree.map(lambda *values: jnp.stack(values), *rows)

    return dispatch


def dispatch_length(config: Config, step: int, steps: int) -> int:
    """Steps in the next call: never past the end of an epoch, and one from a stream."""
    if config.stream:
        return 1
    most = config.steps_per_dispatch or (1 if jax.default_backend() == "cpu" else 32)
    return min(most, steps - step % steps)


def parameter_counts(experiment: Experiment, params: Tree) -> str:
    """One line: parameters per tower, trained and frozen."""
    counts = {name: sum(p.size for p in jax.tree.leaves(tree)) for name, tree in params.items()}
    text = experiment.tower.describe()
    trained = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return (
        f"trained: {sum(counts.values()):,} parameters ({trained}); "
        f"frozen: {text['parameters']:,} ({text['name']})"
    )


if __name__ == "__main__":
    run_main(main)
