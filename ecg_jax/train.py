"""Trains a method.

    python -m ecg_jax.train --config FILE[:ARGS] --workdir DIR [--config.FIELD=VALUE]

Order of operations: read the config; open and check the data; claim the workdir; restore or
initialise; then dispatch a few steps in one jitted call, whose metrics are read while the next one
runs; validate and save at the ends of epochs; evaluate. The same command resumes a stopped run.
"""

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ecg_jax import Config, evaluate
from ecg_jax.data import records, resident
from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError, run_main
from ecg_jax.evaluation import examine
from ecg_jax.evaluation.guards import label_check
from ecg_jax.evaluation.guards.leaks import check_leaks
from ecg_jax.evaluation.validator import Validator
from ecg_jax.inference import exported
from ecg_jax.planning import utilisation
from ecg_jax.run import config as config_lib
from ecg_jax.run import workdir
from ecg_jax.run.experiment import Experiment, open_experiment, with_shards
from ecg_jax.run.provenance import numerics
from ecg_jax.runtime import hosts, lock, process, storage
from ecg_jax.runtime.checkpoint import Checkpoints
from ecg_jax.runtime.files import write_whole
from ecg_jax.runtime.stop import Stop
from ecg_jax.training import feed, optim
from ecg_jax.training.pace import Pace
from ecg_jax.training.profile import Profile
from ecg_jax.training.progress import NonFiniteError, Progress
from ecg_jax.training.state import TrainState, init
from ecg_jax.training.step import dispatch_length, make_dispatch

Tree = Any
MUCH_FILLED = 0.25  # a share of zeros after records' ends that a line tells of
PACE_SECONDS = 30.0  # between two lines of how fast an epoch goes


def main() -> int:
    line = config_lib.parse(sys.argv, __doc__ or "")
    process.configure()
    hosts.start(line.address)
    stop = Stop()
    finished = train(line.config, line.workdir, profile=line.profile, stop=stop)
    return 0 if finished else stop.status


def train(
    config: Config,
    folder: Path,
    *,
    evaluated: bool = True,
    profile: int = 0,
    stop: Stop | None = None,
) -> bool:
    """Trains to the end and (if `evaluated`) evaluates, or saves and returns on SIGTERM or Ctrl-C;
    whether it is finished. Of `profile` updates a trace is written. `stop` says what has stopped
    it.

    Raises:
      UserError: wrong input, a loss that is not finite, a disk that is full.
    """
    stop = stop or Stop()
    shards = workdir.saved_shards(folder)
    if shards is None and config.extend:
        shards = workdir.saved_shards(storage.path(config.extend))
    config = with_shards(config, jax.device_count(), shards)
    experiment = open_together(config)
    with contextlib.ExitStack() as stack:
        finished = _train(experiment, folder, stop, stack, Profile(folder, profile))
        if finished and evaluated:
            evaluate.evaluate(experiment, folder)
    return finished


def _train(
    experiment: Experiment,
    folder: Path,
    stop: Stop,
    stack: contextlib.ExitStack,
    profile: Profile,
) -> bool:
    """Makes the updates, or saves and returns when it is to stop; whether all are made. What
    `stack` is given, the folder's lock, is kept for the evaluation."""
    config = experiment.config
    data, plan, steps = feed.load(experiment)
    optimizer = optim.build(config, steps)
    dispatch = make_dispatch(config, experiment.method, optimizer, steps)
    validate = Validator(experiment)
    state, best = init(experiment, optimizer, plan, begin(experiment, folder)), -np.inf
    before = extended(experiment, folder)
    stack.enter_context(lock.held(folder))
    workdir.claim(folder, experiment)

    last_saves = Checkpoints(folder / "checkpoints" / "last", keep=2)
    best_saves = Checkpoints(folder / "checkpoints" / "best", keep=1)
    if restored := last_saves.restore(state):
        step, state, notes = restored
        best = notes["best"]
        print(f"resumed at step {step:,}")
    elif before:
        step, state, best = carry_over(before, folder, state, best_saves)
        print(
            f"goes on from {before}, step {step:,}, to step {plan.steps:,}; the learning rate is "
            f"from here on that of a run of {config.epochs} epochs"
        )
    print(parameter_counts(experiment, state.params))

    step, total = int(state.step), plan.steps
    fed = feed.feeder(data, step, total)
    saved_step, saved_time = step, time.monotonic()
    progress = Progress(folder, config, start=step, total=total)
    pace = Pace(config.batch_size, experiment.mesh.size, peak_seconds(experiment))
    try:
        stop.training = True
        if step < total:
            progress.compiling()
        while step < total and not stop.at(step):
            length = dispatch_length(config, step, steps, experiment.method.platform)
            with jax.transfer_guard("disallow"):
                with pace.spent_on("input"):
                    batch = next(fed)
                state, metrics = dispatch(state, batch, length)
                progress.steps(step, metrics)
            step += length
            pace.stepped(length)
            profile.called(length, metrics)
            if step % steps and pace.age < PACE_SECONDS:
                continue
            progress.pace(step, pace.row())
            if step % steps:
                continue
            if (step // steps) % config.eval_every == 0 or step == total:
                progress.flush()
                with pace.spent_on("validation"):
                    scores = validate(*state.evaluated(), step // steps)
                    scores = hosts.from_first(scores)
                progress.scores(step, scores)
                if scores["select"] > best:
                    best = scores["select"]
                    with pace.spent_on("checkpoint"):
                        best_saves.save(step, evaluate.frozen(*state.evaluated()), scores)
            due = time.monotonic() - saved_time > config.checkpoint_seconds
            if step < total and hosts.from_first(due):
                progress.flush()
                with pace.spent_on("checkpoint"):
                    best_saves.wait()  # the state names the best one, which must be there by then
                    progress.upload()
                    last_saves.save(step, state, {"best": best})
                saved_step, saved_time = step, time.monotonic()
        progress.flush()
    except NonFiniteError as error:
        step = int(state.step)
        last_saves.save(step, state, {"best": best})
        hosts.together(last_saves.wait)  # the error ends all, also process 0 that writes the index
        raise UserError(
            f"{error} in the update after step {step:,}: the state at step {step} is saved in "
            f"{last_saves.folder}; in another --workdir try a lower "
            "--config.optimizer.learning_rate, or --config.optimizer.clip=1.0"
        ) from error
    finally:
        profile.close()
        progress.close()
    best_saves.close()
    if step > saved_step or step == 0:
        last_saves.save(step, state, {"best": best})
    hosts.together(last_saves.close)
    stop.training = False
    if stop.asked:
        print(f"stopped by {stop.by} at step {step:,}: the same command goes on from here")
        return False
    return True


def begin(experiment: Experiment, folder: Path) -> tuple[Tree, Tree] | None:
    """Parameters and state from `config.init`'s model; None where there is none, or where the run
    in `folder` goes on.

    Raises:
      UserError: there is no such model, or its encoder is another network.
    """
    config = experiment.config
    if not config.init or config.extend or _saved(folder):
        return None
    params, state = experiment.init(jax.random.key(config.seed))
    try:
        parts = hosts.together(lambda: exported.of(storage.path(config.init)))
        params, state, anew = exported.started(params, state, parts)
    except UserError as error:
        raise UserError(f"--config.init={config.init}: {error}") from None
    of, given = parts.description, parts.description["input"]
    run = of["provenance"]
    print(f"starts from {config.init}: {of['method']} on {run['dataset']}, step {run['step']:,}")
    print(f"starts anew: {', '.join(anew) or 'nothing'}")
    for name, now in (("rate_hz", config.rate), ("normalize", config.normalize)):
        if given[name] != now:
            print(f"its encoder was trained with {name} {given[name]}, and goes on with {now}")
    return params, state


def _saved(folder: Path) -> bool:
    """Whether the run in `folder` goes on from a checkpoint of its own."""
    return hosts.from_first(bool(Checkpoints(folder / "checkpoints" / "last").steps()))


def extended(experiment: Experiment, folder: Path) -> Path | None:
    """The folder of `config.extend`'s run; None where there is none, or where the run in `folder`
    has a checkpoint of its own.

    Raises:
      UserError: it is no run of this config with fewer epochs and of these data, or has no
        checkpoint.
    """
    extend = experiment.config.extend
    if not extend or _saved(folder):
        return None
    before = storage.path(extend)
    try:
        workdir.check_extends(experiment, before)
        if not _saved(before):
            raise UserError(f"{before} has no checkpoint yet: train it with its own command")
    except UserError as error:
        raise UserError(f"--config.extend={extend}: {error}") from None
    return before


def carry_over(
    before: Path, folder: Path, state: TrainState, best_saves: Checkpoints
) -> tuple[int, TrainState, float]:
    """Step, state and best figure of the run in `before`, whose best checkpoint and curves become
    those of `folder`."""
    restored = Checkpoints(before / "checkpoints" / "last").restore(state)
    assert restored, before
    step, state, notes = restored
    best = Checkpoints(before / "checkpoints" / "best").restore(evaluate.frozen(*state.evaluated()))
    if best:
        best_saves.save(*best)
    curves = before / "metrics.jsonl"
    if storage.exists(curves):
        hosts.first_alone(lambda: write_whole(folder / curves.name, curves.read_bytes()))
    return step, state, notes["best"]


def open_together(config: Config) -> Experiment:
    """The experiment, once all processes have the same config, software and records.

    Raises:
      UserError: they do not; or what one of them lacks or cannot hold.
    """
    workdir.check_hosts(config)
    experiment = hosts.together(lambda: open_experiment(config))
    hosts.together(lambda: check_memory(experiment))
    examine.check(config)
    # Found after the training, a leak or a misplaced column would cost all of it.
    splits = (experiment.train, experiment.validation, experiment.test)
    check_leaks(*splits)
    for task in config.evaluate.tasks:
        label_check.check_labels(*splits, task)
    check_split(experiment)
    return experiment


def check_memory(experiment: Experiment) -> None:
    """Raises a UserError if a split that is to be resident does not fit; see `resident`."""
    c = experiment.config
    if not c.stream:
        size = records.signal_bytes(c.data_dir, c.dataset, c.rate, "train", seconds=c.seconds)
        resident.check_memory(experiment.mesh, size, f"{c.dataset} train")


def check_split(experiment: Experiment) -> None:
    """Raises a UserError if training records lack leads that the method needs in each, all end
    before `config.seconds`, or some before what it compares in each."""
    c, method, train = experiment.config, experiment.method, experiment.train
    for name in method.leads:
        if lacking := int((~train.lead_mask[:, LEADS.index(name)]).sum()):
            raise UserError(
                f"{c.method} needs the leads {', '.join(method.leads)}, and {lacking:,} of "
                f"{len(train):,} training records of {train.dataset} have no {name}: choose other "
                "leads or another dataset"
            )
    T, longest = train.ecg.shape[1], int(train.length.max())
    if longest < T:
        raise UserError(
            f"--config.seconds={c.seconds:g}: the longest of {len(train):,} training records of "
            f"{train.dataset} has {longest / c.rate:g} s: set that or less"
        )
    if (filled := 1 - float(train.length.mean()) / T) > MUCH_FILLED:
        print(
            f"{filled:.0%} of what is read of the training records is zeros after their ends: "
            f"--config.seconds={float(np.median(train.length)) / c.rate:g} is their median"
        )
    short = train.length < T
    if method.whole and short.any():
        shortest = train.length.min() / c.rate
        raise UserError(
            f"{c.method} compares parts of a record, and {int(short.sum()):,} of {len(train):,} "
            f"training records of {train.dataset} are shorter than {c.seconds:g} s: set "
            f"--config.seconds={shortest:g} or less"
        )


def peak_seconds(experiment: Experiment) -> float:
    """The time of a record on one of the devices at its peak, as `plan` has it; 0 on a CPU."""
    width, device = experiment.described_tower()["width"], experiment.mesh.devices.flat[0]
    dtype = numerics(experiment.config, experiment.method.platform)["dtype"]
    return utilisation.seconds_per_record(experiment.config, width, device, dtype)


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
