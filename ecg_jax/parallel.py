"""The device mesh, and how arrays lie on it."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"


def make_mesh(devices: list | None = None) -> Mesh:
    """A one-axis mesh over all devices of all processes (or over `devices`)."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def by_record(mesh: Mesh) -> NamedSharding:
    """The first axis spread over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def put(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """A host array, the same on every process, onto the mesh; each process copies its part."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
