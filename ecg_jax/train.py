"""Trains a method.

    python -m ecg_jax.train --config FILE[:ARGS] --workdir DIR [--config.FIELD=VALUE]

Order of operations: read the config; open and check the data; claim the workdir; restore or
initialise; then dispatch a few steps in one jitted call, whose metrics are read while the next one
runs; validate and save at the ends of epochs; evaluate. The same command resumes a stopped run.
"""

import functools
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from ecg_jax import cache, evaluate, memory, optim, parallel, workdir
from ecg_jax import config as config_lib
from ecg_jax.checkpoint import Checkpoints
from ecg_jax.data import normalize, resident
from ecg_jax.data.records import check_disjoint
from ecg_jax.errors import UserError, run_main
from ecg_jax.experiment import Experiment, open_experiment, report_texts
from ecg_jax.methods import Method, View
from ecg_jax.progress import NonFiniteError, Progress

Tree = Any


@flax.struct.dataclass
class TrainState:
    """All that a run goes on from; `step` int32 counts the updates made."""

    step: jax.Array
    params: Tree
    method: Tree
    optimizer: optax.OptState


class Data(NamedTuple):
    """The training split and the table [M, F] of the embeddings of its distinct reports."""

    split: resident.Split
    texts: jax.Array


def main() -> None:
    line = config_lib.parse(sys.argv, __doc__ or "")
    configure(cache.folder("xla"))
    train(line.config, line.workdir)


def configure(compilations: Path) -> None:
    """Keeps compiled programs for the next start, and freed memory for the next step."""
    memory.keep_freed()
    jax.config.update("jax_compilation_cache_dir", str(compilations))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def train(config: ConfigDict, folder: Path) -> None:
    """Trains to the end and evaluates, or saves and returns on SIGTERM.

    Raises:
      UserError: wrong input, a loss that is not finite, a disk that is full.
    """
    stop = stop_on_sigterm()
    experiment = open_experiment(config)
    check_disjoint(experiment.train, experiment.validation)
    data, steps = load_data(experiment)
    optimizer = optim.build(config, steps)
    dispatch = make_dispatch(config, experiment.method, optimizer, steps)
    validate = evaluate.Validator(experiment)
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
    saved_step, saved_time = step, time.monotonic()
    progress = Progress(folder, config, start=step, total=total)
    try:
        while step < total and not stop.is_set():
            length = dispatch_length(config, step, steps)
            state, metrics = dispatch(state, data, length)
            progress.steps(step, metrics)
            step += length
            if step % steps:
                continue
            if (step // steps) % config.eval_every == 0 or step == total:
                progress.flush()
                scores = validate(state.params, state.method)
                progress.scores(step, scores)
                if scores["select"] > best:
                    best = scores["select"]
                    best_saves.save(step, evaluate.frozen(state.params, state.method), scores)
            if step < total and time.monotonic() - saved_time > config.checkpoint_seconds:
                last_saves.save(step, state, {"best": best})
                saved_step, saved_time = step, time.monotonic()
        progress.flush()
    except NonFiniteError as error:
        step = int(state.step)
        last_saves.save(step, state, {"best": best})
        last_saves.wait()
        raise UserError(
            f"{error} at step {step:,}: the state before it is saved in {last_saves.folder}; "
            "try a lower --config.optimizer.learning_rate, or --config.optimizer.clip=1.0"
        ) from error
    finally:
        progress.close()
    if step > saved_step or step == 0:
        last_saves.save(step, state, {"best": best})
    last_saves.close()
    best_saves.close()
    if step < total:
        print(f"stopped by SIGTERM at step {step:,}: the same command goes on from here")
        return
    evaluate.evaluate(experiment, folder)


def stop_on_sigterm() -> threading.Event:
    """Set once the process is asked to end, as schedulers do before they take a machine back."""
    event = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: event.set())
    return event


def load_data(experiment: Experiment) -> tuple[Data, int]:
    """The training pairs on the mesh, and the number of steps in an epoch.

    Raises:
      UserError: see `report_texts` and `resident`.
    """
    config, train = experiment.config, experiment.train
    texts, row = report_texts(config, train)
    if dropped := int((row < 0).sum()):
        print(f"{dropped} of {len(train):,} training records have no report text: left out")
        train, row = train.take(np.flatnonzero(row >= 0)), row[row >= 0]
    steps = resident.steps_per_epoch(len(train), config.batch_size, config.shards)
    table = experiment.tower.embed(texts, template=config.text.template)
    split = resident.put(
        experiment.mesh, train.ecg, train.lead_mask, row, shards=config.shards, seed=config.seed
    )
    return Data(split, parallel.put(table, parallel.replicated(experiment.mesh))), steps


def init(experiment: Experiment, optimizer: optax.GradientTransformation) -> TrainState:
    """The state at step 0, replicated over the mesh."""
    params, method = experiment.init(jax.random.key(experiment.config.seed))
    sharding = parallel.replicated(experiment.mesh)
    moments = jax.jit(optimizer.init, out_shardings=sharding)(params)
    return TrainState(jax.device_put(jnp.int32(0), sharding), params, method, moments)


def make_dispatch(
    config: ConfigDict, method: Method, optimizer: optax.GradientTransformation, steps: int
) -> Callable[[TrainState, Data, int], tuple[TrainState, dict[str, jax.Array]]]:
    """`dispatch(state, data, length)` makes `length` updates in one call.

    It returns the new state (the old one's memory is reused) and each step's metrics, [length].
    An update whose loss or gradient is not finite is not made, and the state stays at its step.
    """

    def view(data: Data, step: jax.Array) -> View:
        batch = resident.draw(data.split, config.seed, step, steps, config.batch_size)
        ecg = normalize.normalize(batch.ecg, batch.lead_mask, config.normalize)
        return View(ecg, batch.lead_mask, data.texts[batch.text], batch.text)

    def update(data: Data, state: TrainState, _: None) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed + 1), state.step)
        grad = jax.value_and_grad(method.loss, has_aux=True)
        (loss, (new_method, metrics)), gradient = grad(
            state.params, state.method, view(data, state.step), key
        )
        norm = optax.global_norm(gradient)
        updates, new_optimizer = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        if method.after_update is not None:
            new_method = method.after_update(params, new_method)
        new = TrainState(state.step + 1, params, new_method, new_optimizer)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        return state, {"loss": loss, "gradient_norm": norm, **metrics}

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def dispatch(state: TrainState, data: Data, length: int):
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


def dispatch_length(config: ConfigDict, step: int, steps: int) -> int:
    """Steps in the next call: never past the end of an epoch."""
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
