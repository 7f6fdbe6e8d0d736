"""An update of the state, and several of them in one call of the device."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ecg_jax import Config
from ecg_jax.methods import Method, Rows, lasting
from ecg_jax.runtime import parallel
from ecg_jax.training import feed, optim
from ecg_jax.training.packing import Flattened, Forms, Packed, Packing
from ecg_jax.training.state import TrainState, state_layout

Tree = Any


def make_dispatch(
    config: Config, method: Method, optimizer: optax.GradientTransformationExtraArgs, steps: int
) -> Callable[[TrainState, feed.Data, int], tuple[TrainState, dict[str, jax.Array]]]:
    """`dispatch(state, data, length)` makes `length` updates in one call.

    It returns the new state (the old one's memory is reused) and each step's metrics, [length].
    An update whose loss or gradient is not finite is not made, and the state stays at its step.
    """

    # On a GPU each kernel costs its launch; a TPU lays parameters out by their shapes.
    flat = method.platform == "gpu" and not config.parallel.shard_optimizer

    def update(data: feed.Data, state: TrainState, form: Forms) -> tuple[TrainState, Tree]:
        key = jax.random.fold_in(jax.random.key(config.seed + 1), state.step)
        grad = jax.value_and_grad(method.loss, has_aux=True)
        (loss, (new_method, metrics)), gradient = grad(
            form.tree(state.params),
            state.method,
            feed.view(config, data, state.step, steps),
            key,
        )
        gradient = form.gradient(gradient)
        norm = optim.norm_of(gradient)
        updates, new_optimizer = optimizer.update(
            gradient, state.optimizer, state.params, norm=norm
        )
        params = optax.apply_updates(state.params, updates)
        if method.bounded is not None:
            params = form.flat(method.bounded(form.tree(params)))
        if method.after_update is not None:
            new_method = method.after_update(form.tree(params), new_method)
        average = optim.running_mean(
            config.average, state.step, state.average, (params, lasting(new_method))
        )
        new = TrainState(state.step + 1, params, new_method, new_optimizer, average)
        state = chosen(jnp.isfinite(loss) & jnp.isfinite(norm), new, state)
        layout = state_layout(config, method, state, mesh_size())
        state = jax.lax.with_sharding_constraint(state, layout)
        return state, {"loss": loss, "gradient_norm": norm, **metrics}

    @functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
    def dispatch(state: TrainState, data: feed.Data, length: int):
        with parallel.mesh_of(state.step):
            if method.platform != "cpu":
                return several(state, data, length)
            # XLA's CPU backend brings only the entry computation's convolutions into the form that
            # its fast kernels take; a gradient convolution in a loop's body runs 50 times slower.
            rows = []
            for _ in range(length):
                state, metrics = update(data, state, Forms())
                rows.append(metrics)
        return state, jax.tree.map(lambda *values: jnp.stack(values), *rows)

    def several(state: TrainState, data: feed.Data, length: int) -> tuple[TrainState, Tree]:
        form = Flattened(state.params) if flat else Packed()
        begun = form.everywhere(state)
        packing = Packing(begun, state_layout(config, method, begun, mesh_size()))
        told: list[Packing] = []

        def step(carry: Tree, _: None) -> tuple[Tree, Tree]:
            state, metrics = update(data, packing.unpack(carry), form)
            told[:] = [Packing(metrics)]
            return packing.pack(state), told[0].pack(metrics)

        carry, metrics = jax.lax.scan(step, packing.pack(begun), length=length)
        return form.apart(packing.unpack(carry)), jax.vmap(told[0].unpack)(metrics)

    return dispatch


def chosen(made: jax.Array, new: Tree, old: Tree) -> Tree:
    """The new state if an update is made, else the old one; of an array of which `Rows` are
    written nothing else is touched."""

    def choose(new: Any, old: jax.Array) -> jax.Array:
        return new.into(old, made) if isinstance(new, Rows) else jnp.where(made, new, old)

    return jax.tree.map(choose, new, old, is_leaf=lambda x: isinstance(x, Rows))


def mesh_size() -> int:
    return jax.sharding.get_abstract_mesh().size


def dispatch_length(config: Config, step: int, steps: int, platform: str) -> int:
    """Steps in the next call: never past the end of an epoch, and one from a stream."""
    if config.stream:
        return 1
    most = config.steps_per_dispatch or (1 if platform == "cpu" else 32)
    return min(most, steps - step % steps)
