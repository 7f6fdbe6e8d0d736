"""What a run goes on from, and how it lies on the mesh."""

import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from ecg_jax import Config
from ecg_jax.methods import Method, Plan, lasting
from ecg_jax.run.experiment import Experiment
from ecg_jax.runtime import parallel

Tree = Any


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


def init(
    experiment: Experiment,
    optimizer: optax.GradientTransformation,
    plan: Plan,
    begin: tuple[Tree, Tree] | None = None,
) -> TrainState:
    """The state at step 0, laid out on the mesh: `begin` are parameters and the method's state, if
    they are not random."""
    config, mesh, method = experiment.config, experiment.mesh, experiment.method
    params, state = begin or experiment.init(jax.random.key(config.seed))
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
