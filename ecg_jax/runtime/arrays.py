"""Arrays in a folder, written and read by orbax: the only file that imports it.

orbax writes to file systems and to gs://, each process the parts that its devices hold; of copies,
one. What it cannot write to, such as s3://, gets a copy of what process 0 has written beside it.
Its import takes a second, so that it comes with the first arrays that are written or read.
"""

import hashlib
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import absl.logging
import jax
import numpy as np

from ecg_jax.runtime import hosts, storage

Tree = Any


def orbax() -> Any:
    """The package `orbax.checkpoint`. It reports every phase by absl's logger; what others say
    there is kept."""
    absl.logging.get_absl_logger().addFilter(_not_of_orbax)
    import orbax.checkpoint

    return orbax.checkpoint


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


def begin_writing(folder: Path, tree: Tree, name: str) -> Callable[[], None]:
    """Copies arrays from the devices and begins to write them into a folder, which is not there
    yet; what is returned waits until it is. All processes call it with one `name`, used once."""
    ocp, where, alone = orbax(), folder, _beside(folder)
    if alone:
        tree = jax.tree.map(lambda x: np.array(hosts.whole(x)), tree)
        if not hosts.first():
            return lambda: None
        where = Path(tempfile.mkdtemp(prefix="ecg_jax.")) / "arrays"
    processes = ocp.options.MultiprocessingOptions(
        barrier_sync_key_prefix=name, active_processes={0} if alone else None
    )
    saver = ocp.AsyncCheckpointer(_handler(ocp), multiprocessing_options=processes)
    saver.save(_absolute(where), args=ocp.args.PyTreeSave(tree))

    def finish() -> None:
        saver.close()
        if alone:
            storage.copy_tree(where, folder)
            storage.remove(where.parent)

    return finish


def read(folder: Path, like: Tree) -> Tree:
    """Arrays with the shapes, types and shardings of `like` (without one, on one device), each
    process the parts that its devices hold."""
    if _beside(folder):
        with tempfile.TemporaryDirectory(prefix="ecg_jax.") as copy:
            storage.copy_tree(folder, Path(copy))
            return read(Path(copy), like)
    ocp, one = orbax(), jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def wanted(leaf: Any) -> jax.ShapeDtypeStruct:
        sharding = getattr(leaf, "sharding", None) or one
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    like = jax.tree.map(wanted, like)
    places = ocp.checkpoint_utils.construct_restore_args(like)
    args = ocp.args.PyTreeRestore(item=like, restore_args=places)
    return _handler(ocp).restore(_absolute(folder), args=args)


def digests(tree: Tree) -> dict[str, str]:
    """sha256 of every array of a tree, by its path; all processes call it with theirs."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        data = np.ascontiguousarray(hosts.whole(leaf))
        found[jax.tree_util.keystr(path)] = hashlib.sha256(data.tobytes()).hexdigest()
    return found


def _beside(folder: Path) -> bool:
    """Whether orbax cannot write to a folder itself."""
    return storage.remote(folder) and not str(folder).startswith("gs://")


def _absolute(folder: Path) -> Path:
    return folder if storage.remote(folder) else folder.absolute()


def _handler(ocp: Any) -> Any:
    # One of several copies is written: to cut them takes a program for each shape.
    kinds = ocp.type_handlers
    registry = kinds.create_type_handler_registry(
        (jax.Array, kinds.ArrayHandler(use_replica_parallel=False)),
        (np.ndarray, kinds.NumpyHandler()),
    )
    return ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=registry)
