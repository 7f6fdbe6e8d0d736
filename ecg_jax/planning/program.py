"""The training step as it would run on a mesh that need not be there, from shapes alone.

    target = targets.parse("h100x8")
    step = program.trace(config, target.mesh(), records=17_418, width=768)
    compiled = step.compile()

The program is the one that `train` runs: `make_dispatch`, with the arrays' shapes and their layout
on the mesh in place of the arrays. Nothing is read but the config, and nothing is allocated.
"""

import copy
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ecg_jax import Config
from ecg_jax.data import resident
from ecg_jax.data.leads import LEADS
from ecg_jax.methods import Method, Plan, build
from ecg_jax.run.experiment import blank
from ecg_jax.runtime import parallel
from ecg_jax.training import feed, optim
from ecg_jax.training.state import TrainState, state_layout
from ecg_jax.training.step import make_dispatch

Tree = Any  # of jax.ShapeDtypeStruct


@dataclasses.dataclass(frozen=True)
class Step:
    """A traced call of the dispatch.

    Attributes:
      traced: `jax.stages.Traced`; `traced.jaxpr` is the program before XLA.
      state, data: the shapes it is called with, laid out on the mesh.
      length: updates in one call.
      steps: updates in an epoch.
    """

    config: Config
    mesh: Mesh
    traced: Any
    state: TrainState
    data: feed.Data
    length: int
    steps: int

    def compile(self) -> jax.stages.Compiled:
        """Compiled for the mesh's devices, which takes one to four minutes on two cores."""
        return self.traced.lower().compile()


def trace(config: Config, mesh: Mesh, *, records: int, width: int, length: int = 0) -> Step:
    """Traces the training step for a mesh.

    Args:
      records: of the training split.
      width: of the text embeddings; 0 for a method without a text side.
      length: updates in one call; 0: as many as `train` makes.

    Raises:
      UserError: batch, shards and devices do not divide; see `resident`.
    """
    resident.check_shards(mesh, config.shards)
    steps = resident.steps_per_epoch(records, config.batch_size, config.shards)
    method = build(config, parallel.platform(mesh))
    optimizer = optim.build(config, steps)
    state = abstract_state(config, method, optimizer, mesh, records, width)
    data = abstract_data(config, mesh, records, width)
    if not length:
        length = 1 if config.stream else min(int(config.steps_per_dispatch) or 32, steps)
    dispatch = make_dispatch(config, method, optimizer, steps)
    traced = dispatch.trace(state, data, length)  # type: ignore[attr-defined]
    return Step(config, mesh, traced, state, data, length, steps)


def resolved(config: Config, platform: str) -> Config:
    """The config with the type of activations that it has on a platform."""
    config = copy.deepcopy(config)
    if config.model.dtype == "auto":
        config.model.dtype = "float32" if platform == "cpu" else "bfloat16"
    return config


def abstract_state(
    config: Config, method: Method, optimizer: Any, mesh: Mesh, records: int, width: int
) -> TrainState:
    """The state's shapes, laid out as `training.state.init` lays it out."""
    T = round(config.seconds * config.rate)
    steps = resident.steps_per_epoch(records, config.batch_size, config.shards)
    plan = Plan(records, config.epochs * steps)

    def start(key: jax.Array) -> TrainState:
        params, state = method.init(key, blank(T, width))
        average = (params, state) if config.average else None
        if method.memory is not None:
            state = {**state, "memory": method.memory(params, state, plan)}
        return TrainState(jnp.int32(0), params, state, optimizer.init(params), average)

    shapes = jax.eval_shape(start, jax.random.key(0))
    layout = state_layout(config, method, shapes, mesh.size)
    return jax.tree.map(functools.partial(_laid, mesh), shapes, layout)


def abstract_data(config: Config, mesh: Mesh, records: int, width: int) -> feed.Data:
    """The shapes of what a call is fed: the split, or a batch of a stream, and the tables.

    How many reports are distinct is known only to the data; here each record has its own.
    """
    T, parts, copies = round(config.seconds * config.rate), PartitionSpec(parallel.AXIS), None
    shape = functools.partial(_shape, mesh)
    if config.stream:
        B = config.batch_size
        split = resident.Batch(
            shape((B, T, len(LEADS)), np.int16, parts),
            shape((B, len(LEADS)), np.bool_, parts),
            shape((B,), np.int32, parts),
        )
    else:
        V, n = config.shards, -(-records // config.shards)
        split = resident.Split(
            shape((V, n, T, len(LEADS)), np.int16, parts),
            shape((V, n, len(LEADS)), np.bool_, parts),
            shape((V, n), np.int32, parts),
            shape((V,), np.int32, parts),
        )
    texts = shape((records if width else 1, width), np.float32, copies)
    row = shape((records,), np.int32, copies)
    return feed.Data(split, feed.Tables(texts, row, row))


def _shape(mesh: Mesh, shape: tuple, dtype: Any, spec: PartitionSpec | None) -> Any:
    return _laid(mesh, jax.ShapeDtypeStruct(shape, dtype), spec or PartitionSpec())


def _laid(mesh: Mesh, x: Any, spec: PartitionSpec) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))


def device_bytes(tree: Tree) -> int:
    """Bytes on each device of a tree of laid out shapes."""
    return sum(
        int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize
        for x in jax.tree.leaves(tree)
    )
