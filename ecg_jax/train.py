"""Trains a method.

    python -m ecg_jax.train --config FILE[:ARGS] --workdir DIR [--config.FIELD=VALUE]

Order of operations: read the config; open and check the data; claim the workdir; restore or
initialise; then dispatch a few steps in one jitted call, whose metrics are read while the next one
runs; validate and save at the ends of epochs; evaluate. The same command resumes a stopped run.
"""

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from ecg_jax import cache, evaluate, feed, hosts, malloc, optim, parallel, workdir
from ecg_jax import config as config_lib
from ecg_jax.checkpoint import Checkpoints
from ecg_jax.config import Config
from ecg_jax.data import records, resident
from ecg_jax.data.leads import LEADS
from ecg_jax.data.records import check_disjoint
from ecg_jax.errors import UserError, run_main
from ecg_jax.evaluation import examine
from ecg_jax.evaluation.validator import Validator
from ecg_jax.experiment import Experiment, open_experiment
from ecg_jax.methods import Method, Plan, lasting
from ecg_jax.progress import NonFiniteError, Progress
from ecg_jax.stop import Stop

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
        return self.average or (self.params, lasting(self.method))


def main() -> int:
    line = config_lib.parse(sys.argv, __doc__ or "")
    configure(cache.folder("xla"))
    hosts.start(line.address)
    finished = train(line.config, line.workdir)
    return 0 if finished or jax.process_count() == 1 else STOPPED


def configure(compilations: Path) -> None:
    """Keeps compiled programs for the next start, and freed memory for the next step."""
    malloc.keep_freed()
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
    data, plan, steps = feed.load(experiment)
    optimizer = optim.build(config, steps)
    dispatch = make_dispatch(config, experiment.method, optimizer, steps)
    validate = Validator(experiment)
    state, best = init(experiment, optimizer, plan), -np.inf
    workdir.claim(folder, experiment)

    last_saves = Checkpoints(folder / "checkpoints" / "last", keep=2)
    best_saves = Checkpoints(folder / "checkpoints" / "best", keep=1)
    if restored := last_saves.restore(state):
        step, state, notes = restored
        best = notes["best"]
        print(f"resumed at step {step:,}")
    print(parameter_counts(experiment, state.params))

    step, total = int(state.step), plan.steps
    fed = feed.feeder(data, step, total)
    saved_step, saved_time = step, time.monotonic()
    progress = Progress(folder, config, start=step, total=total)
    try:
        stop.training = True
        while step < total and not stop.at(step):
            length = dispatch_length(config, step, steps)
            state, metrics = dispatch(state, next(fed), length)
            progress.steps(step, metrics)
            step += length
            if step % steps:
                continue
            if (step // steps) % config.eval_every == 0 or step == total:
                progress.flush()
                scores = hosts.from_first(validate(*state.evaluated(), step // steps))
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


def open_together(config: Config) -> Experiment:
    """The experiment, once all processes have the same config, software and records.

    Raises:
      UserError: they do not; or what one of them lacks or cannot hold.
    """
    workdir.check_hosts(config)
    experiment = hosts.together(lambda: open_experiment(config))
    hosts.together(lambda: check_memory(experiment))
    examine.check(config)
    check_disjoint(experiment.train, experiment.validation)
    check_split(experiment)
    return experiment


def check_memory(experiment: Experiment) -> None:
    """Raises a UserError if a split that is to be resident does not fit; see `resident`."""
    c = experiment.config
    if not c.stream:
        size = records.signal_bytes(c.data_dir, c.dataset, c.rate, "train", seconds=c.seconds)
        resident.check_memory(experiment.mesh, size, f"{c.dataset} train")


def check_split(experiment: Experiment) -> None:
    """Raises a UserError if training records lack leads that the method needs in each, or end
    before what it compares in each."""
    c, method, train = experiment.config, experiment.method, experiment.train
    for name in method.leads:
        if lacking := int((~train.lead_mask[:, LEADS.index(name)]).sum()):
            raise UserError(
                f"{c.method} needs the leads {', '.join(method.leads)}, and {lacking:,} of "
                f"{len(train):,} training records of {train.dataset} have no {name}: choose other "
                "leads or another dataset"
            )
    short = train.length < train.ecg.shape[1]
    if method.whole and short.any():
        shortest = train.length.min() / c.rate
        raise UserError(
            f"{c.method} compares parts of a record, and {int(short.sum()):,} of {len(train):,} "
            f"training records of {train.dataset} are shorter than {c.seconds:g} s: set "
            f"--config.seconds={shortest:g} or less"
        )


def init(experiment: Experiment, optimizer: optax.GradientTransformation, plan: Plan) -> TrainState:
    """The state at step 0, laid out on the mesh."""
    config, mesh, method = experiment.config, experiment.mesh, experiment.method
    params, state = experiment.init(jax.random.key(config.seed))
    copy = functools.partial(jax.tree.map, jnp.copy)  # no array may be donated twice

    def start(params: Tree, state: Tree) -> TrainState:
        average = copy((params, state)) if config.average else None
        if method.memory is not None:
            state = {**state, "memory": copy(method.memory(params, state, plan))}
        return TrainState(jnp.int32(0), params, state, optimizer.init(params), average)

    layout = state_layout(config, method, jax.eval_shape(start, params, state), mesh.size)
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), layout)
    return jax.jit(start, out_shardings=shardings)(params, state)


def state_layout(config: Config, method: Method, state: TrainState, devices: int) -> TrainState:
    """How each array of the state lies on the mesh: in copies, but for the rows of a method's
    memory and, if the config says so, the optimiser's."""
    copies = jax.tree.map(lambda _: PartitionSpec(), state)
    memory = copies.method.get("memory", {})
    for name in method.rows:
        memory[name] = PartitionSpec(parallel.AXIS)
    return copies.replace(optimizer=optimizer_layout(config, state.optimizer, devices))


def optimizer_layout(config: Config, state: optax.OptState, devices: int) -> Tree:
    """How each array of the optimiser's state lies on the mesh: in copies, or in parts (ZeRO,
    Rajbhandari et al. 2020, stage 1)."""
    parts = devices if config.parallel.shard_optimizer else 1
    return jax.tree.map(lambda x: parallel.spread(x, parts), state)


def make_dispatch(
    config: Config, method: Method, optimizer: optax.GradientTransformation, steps: int
) -> Callable[[TrainState, feed.Data, int], tuple[TrainState, dict[str, jax.Array]]]:
    """`dispatch(state, data, length)` makes `length` updates in one call.

    It returns the new state (the old one's memory is reused) and each step's metrics, [length].
    An update whose loss or gradient is not finite is not made, and the state stays at its step.
    """

    def update(data: feed.Data, state: TrainState, _: None) -> tuple[TrainState, Tree]:
        key = jax.random.fold_in(jax.random.key(config.seed + 1), state.step)
        grad = jax.value_and_grad(method.loss, has_aux=True)
        (loss, (new_method, metrics)), gradient = grad(
            state.params, state.method, feed.view(config, data, state.step, steps), key
        )
        norm = optax.tree.norm(gradient)
        updates, new_optimizer = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        if method.after_update is not None:
            new_method = method.after_update(params, new_method)
        average = optim.running_mean(
            config.average, state.step, state.average, (params, lasting(new_method))
        )
        new = TrainState(state.step + 1, params, new_method, new_optimizer, average)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        layout = state_layout(config, method, state, jax.sharding.get_abstract_mesh().size)
        state = jax.lax.with_sharding_constraint(state, layout)
        return state, {"loss": loss, "gradient_norm": norm, **metrics}

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def dispatch(state: TrainState, data: feed.Data, length: int):
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
    text = experiment.described_tower()
    trained = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return (
        f"trained: {sum(counts.values()):,} parameters ({trained}); "
        f"frozen: {text['parameters']:,} ({text['name']})"
    )


if __name__ == "__main__":
    run_main(main)
