"""An update of the state, and several of them in one call of the device."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from ecg_jax import Config
from ecg_jax.methods import Method, lasting
from ecg_jax.runtime import parallel
from ecg_jax.training import feed, optim
from ecg_jax.training.state import TrainState, state_layout

Tree = Any


def make_dispatch(
    config: Config, method: Method, optimizer: optax.GradientTransformationExtraArgs, steps: int
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
        if method.platform != "cpu":
            gradient = packed(gradient)
        norm = optim.norm_of(gradient)
        updates, new_optimizer = optimizer.update(
            gradient, state.optimizer, state.params, norm=norm
        )
        params = optax.apply_updates(state.params, updates)
        if method.bounded is not None:
            params = method.bounded(params)
        if method.after_update is not None:
            new_method = method.after_update(params, new_method)
        average = optim.running_mean(
            config.average, state.step, state.average, (params, lasting(new_method))
        )
        new = TrainState(state.step + 1, params, new_method, new_optimizer, average)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        state = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, state)
        layout = state_layout(config, method, state, mesh_size())
        state = jax.lax.with_sharding_constraint(state, layout)
        return state, {"loss": loss, "gradient_norm": norm, **metrics}

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def dispatch(state: TrainState, data: feed.Data, length: int):
        with parallel.mesh_of(state.step):
            if method.platform != "cpu":
                packing = Packing(state, state_layout(config, method, state, mesh_size()))

                def step(carry: Tree, _: None) -> tuple[Tree, Tree]:
                    state, metrics = update(data, packing.unpack(carry), None)
                    return packing.pack(state), metrics

                carry, metrics = jax.lax.scan(step, packing.pack(state), length=length)
                return packing.unpack(carry), metrics
            # XLA's CPU backend brings only the entry computation's convolutions into the form that
            # its fast kernels take; a gradient convolution in a loop's body runs 50 times slower.
            rows = []
            for _ in range(length):
                state, metrics = update(data, state, None)
                rows.append(metrics)
        return state, jax.tree.map(lambda *values: jnp.stack(values), *rows)

    return dispatch


def packed(tree: Tree) -> Tree:
    """The same arrays, the vectors being parts of one that a single kernel writes."""
    packing = Packing(tree, jax.tree.map(lambda _: PartitionSpec(), tree))
    vector, others = packing.pack(tree)
    return packing.unpack((jax.lax.optimization_barrier(vector), others))


def mesh_size() -> int:
    return jax.sharding.get_abstract_mesh().size


class Packing:
    """A state with its vectors side by side in one, as a loop carries it: what an update does to
    some hundred of them (scales, biases, statistics, their moments and averages) is then done by a
    few kernels."""

    def __init__(self, state: Tree, layout: Tree):
        """`layout` [as state] holds PartitionSpecs; what lies in parts is not packed."""
        leaves, self._tree = jax.tree.flatten(state)
        specs = self._tree.flatten_up_to(layout)
        self._shapes = [leaf.shape for leaf in leaves]
        self._packed = [
            leaf.ndim <= 1 and leaf.dtype == jnp.float32 and not any(spec)
            for leaf, spec in zip(leaves, specs, strict=True)
        ]

    def pack(self, state: Tree) -> tuple[jax.Array, list[jax.Array]]:
        leaves = list(zip(jax.tree.leaves(state), self._packed, strict=True))
        vectors = [leaf.reshape(-1) for leaf, packed in leaves if packed]
        return jnp.concatenate(vectors), [leaf for leaf, packed in leaves if not packed]

    def unpack(self, carry: tuple[jax.Array, list[jax.Array]]) -> Tree:
        vector, others = carry
        leaves, start, rest = [], 0, iter(others)
        for shape, packed in zip(self._shapes, self._packed, strict=True):
            if not packed:
                leaves.append(next(rest))
                continue
            size = math.prod(shape)
            leaves.append(vector[start : start + size].reshape(shape))
            start += size
        return jax.tree.unflatten(self._tree, leaves)


def dispatch_length(config: Config, step: int, steps: int, platform: str) -> int:
    """Steps in the next call: never past the end of an epoch, and one from a stream."""
    if config.stream:
        return 1
    most = config.steps_per_dispatch or (1 if platform == "cpu" else 32)
    return min(most, steps - step % steps)
