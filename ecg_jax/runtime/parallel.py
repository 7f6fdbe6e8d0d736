"""The device mesh, and how arrays lie on it."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"
Tree = Any


def make_mesh(devices: list | None = None) -> Mesh:
    """A one-axis mesh over all devices of all processes (or over `devices`)."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def platform(mesh: Mesh | None = None) -> str:
    """ "cpu", "gpu" or "tpu": what the mesh's devices are, which need not be here; by default those
    that are."""
    name = (jax.devices()[0] if mesh is None else mesh.devices.flat[0]).platform
    return "gpu" if name in ("cuda", "rocm") else name


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def by_record(mesh: Mesh) -> NamedSharding:
    """The first axis spread over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def spread(x: Any, devices: int) -> PartitionSpec:
    """A parameter-shaped array in parts, along its longest axis that divides; else in copies."""
    axes = [axis for axis, size in enumerate(x.shape) if size % devices == 0]
    if devices == 1 or not axes:
        return PartitionSpec()
    axis = max(axes, key=lambda axis: x.shape[axis])
    return PartitionSpec(*[None] * axis, AXIS)


def put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """A host array, the same on every process, onto the mesh; each process copies its part."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def put_rows(array: Any, rows: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """`array[rows]`, rows of any shape, onto the mesh; each process reads only its part."""
    shape = (*rows.shape, *array.shape[1:])

    def part(index: Any) -> np.ndarray:
        wanted = rows[index[0]]
        return array[wanted.ravel()].reshape(*wanted.shape, *array.shape[1:])

    return jax.make_array_from_callback(shape, sharding, part)


def mesh_of(x: jax.Array) -> contextlib.AbstractContextManager:
    """Inside a jitted function: `shard_map` is over the mesh that its argument `x` lies on."""
    return jax.sharding.use_abstract_mesh(jax.typeof(x).sharding.mesh)


def whole(x: jax.Array) -> jax.Array:
    """x, spread over the mesh, on every device: gathered here, once, and not at each of the places
    that read it. Without a mesh, x."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec())


def by_rows(apply: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """`apply(*arrays)`, all [B, ...], on every device's own rows: for what XLA does not divide by
    itself, such as FFTs, before which it gathers the whole batch."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or AXIS in mesh.manual_axes:  # none, or a device's own rows already
        return apply(*arrays)
    rows = PartitionSpec(AXIS)
    return jax.shard_map(apply, in_specs=rows, out_specs=rows)(*arrays)


def per_device(
    apply: Callable[[Tree, jax.Array], tuple[jax.Array, Tree]],
) -> Callable[[Tree, jax.Array], tuple[jax.Array, Tree]]:
    """`y [B, ...], state = apply(variables, x [B, ...])`, on every device's own records.

    BatchNorm then sees a device's part of the batch, without communication; the state, its running
    statistics, is the mean over the devices.
    """

    def local(variables: Tree, x: jax.Array) -> tuple[jax.Array, Tree]:
        # As arrays of each device's own, their gradients are summed over the devices even where a
        # gradient is written by hand.
        variables = jax.tree.map(lambda v: jax.lax.pcast(v, AXIS, to="varying"), variables)
        y, state = apply(variables, x)
        return y, jax.tree.map(average, state)

    def average(s: jax.Array) -> jax.Array:  # seeds and counts are the same on all
        real = jnp.issubdtype(s.dtype, jnp.floating)
        return jax.lax.pmean(s, AXIS) if real else jax.lax.pmax(s, AXIS)

    copies, parts = PartitionSpec(), PartitionSpec(AXIS)
    return jax.shard_map(local, in_specs=(copies, parts), out_specs=(parts, copies))
