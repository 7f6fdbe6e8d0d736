"""Checkpoints of one run, on local disks and in object stores alike.

    <folder>/<step>/arrays/      what orbax writes, beside the training: `arrays.py`
    <folder>/<step>/index.json   written last: without it there is no checkpoint

The index has the arrays' names, shapes and types, each file's sha256 and, as a seal, its own. So a
checkpoint says whether it fits before it is read, and whether it is whole; it goes onto any number
of devices and processes.
"""

import hashlib
import itertools
import json
import re
import shutil
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from ecg_jax import errors
from ecg_jax.errors import UserError
from ecg_jax.runtime import arrays, earlier_checkpoint, files, hosts, storage

Tree = Any
FORMAT = 2
INDEX = "index.json"
ARRAYS = "arrays"
_saves = itertools.count()  # alike on all processes, which save in one order


class Checkpoints:
    """The checkpoints of one folder; saves run beside the training."""

    def __init__(self, folder: Path, keep: int = 2):
        self.folder, self._keep = folder, keep
        self._writing: threading.Thread | None = None
        self._error: Exception | None = None

    def steps(self) -> list[int]:
        """The steps of which there are whole checkpoints, in order."""
        if not storage.exists(self.folder):
            return []
        marks = (INDEX, earlier_checkpoint.MARK)
        folders = [p for p in self.folder.iterdir() if re.fullmatch(r"\d+", p.name)]
        return sorted(
            int(p.name) for p in folders if any(storage.exists(p / name) for name in marks)
        )

    def save(self, step: int, state: Tree, notes: dict[str, Any]) -> None:
        """Starts saving `state` under `step`; one that is there already is replaced.

        Saves of this step and of later ones, left by a run that went on from a damaged checkpoint,
        are removed first, as is what a killed save has left.

        Raises:
          UserError: this save, or the one before it, could not be written.
        """
        self.wait()
        tree = named(state)
        shapes = {name: _described(leaf) for name, leaf in tree.items()}
        index = {"format": FORMAT, "notes": notes, "arrays": shapes}
        hosts.together(lambda: self._prepare(step, tree))
        folder, name = self.folder / str(step), f"{self.folder.name}{next(_saves)}"
        try:
            finish = arrays.begin_writing(folder / ARRAYS, tree, name)
        except Exception as error:  # whatever a full disk makes orbax raise
            raise self._failed(error) from error
        self._writing = threading.Thread(target=self._write, args=(folder, index, finish))
        self._writing.start()

    def _prepare(self, step: int, tree: dict[str, Any]) -> None:
        local = not storage.remote(self.folder)
        if local:
            self.folder.mkdir(parents=True, exist_ok=True)
        if hosts.first() and storage.exists(self.folder):
            whole = {str(s) for s in self.steps() if s < step}
            for folder in self.folder.iterdir():
                if folder.name not in whole:
                    storage.remove(folder)
        if local:
            need = int(1.1 * sum(_own_bytes(leaf) for leaf in tree.values())) + 2**20
            if shutil.disk_usage(self.folder).free < need:
                raise UserError(
                    f"no room for a checkpoint in {self.folder}: {need / 1e6:.1f} MB are needed: "
                    "make room and run the same command again"
                )

    def _write(self, folder: Path, index: dict[str, Any], finish: Callable[[], None]) -> None:
        try:
            with storage.reached(folder):
                finish()
                if not hosts.first():
                    return
                where = folder / ARRAYS
                found = [file.relative_to(where).as_posix() for file in storage.files(where)]
                index["sha256"] = {name: _sha256(where / name) for name in found}
                index["seal"] = _seal(index)
                files.write_whole(folder / INDEX, json.dumps(index).encode())
                for old in self.steps()[: -self._keep]:
                    storage.remove(self.folder / str(old))
        except Exception as error:
            self._error = error
            lost = isinstance(error, TimeoutError | jax.errors.JaxRuntimeError)  # another process
            if errors.tell_others and not lost:  # the others wait for this one's part
                errors.tell_others(str(self._failed(error)), False)

    def restore(self, like: Tree) -> tuple[int, Tree, dict[str, Any]] | None:
        """The newest checkpoint that is whole: (step, state, notes), or None if there is none.

        A damaged one is skipped with a warning for the one before it.

        Args:
          like: a tree of arrays or `jax.ShapeDtypeStruct` with the shardings wanted.

        Raises:
          UserError: there are checkpoints, and none of them is whole, or one is of another
            structure.
        """
        steps = hosts.from_first(self.steps())
        if not steps:
            threading.Thread(target=arrays.orbax).start()  # for the first save, beside compiling
            return None
        for step in reversed(steps):
            folder = self.folder / str(step)
            try:
                return step, *_read(folder, like)
            except StructureError:
                raise
            except UserError as error:
                warnings.warn(f"checkpoint {folder} is damaged ({error}): skipped", stacklevel=2)
        raise UserError(f"no checkpoint in {self.folder} is whole: start in a new workdir")

    def wait(self) -> None:
        """Until what was saved is on disk.

        Raises:
          UserError: it could not be written.
        """
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        error, self._error = self._error, None
        if error is not None:
            raise self._failed(error) from error

    def close(self) -> None:
        """Waits for what was saved. Raises as `wait` does."""
        self.wait()

    def _failed(self, error: Exception) -> UserError:
        return UserError(
            f"could not write a checkpoint in {self.folder}: {_reason(error)}: make room and "
            "run the same command again"
        )


class StructureError(UserError):
    """A checkpoint that is whole, and of another model, optimiser or version."""


def named(tree: Tree) -> dict[str, Any]:
    """The leaves of a tree by names that last: a dict's keys, a dataclass's fields and, as the
    fields of other libraries' tuples change their names, places in tuples."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        node, words = tree, []
        for key in path:
            if isinstance(key, jax.tree_util.GetAttrKey):
                fields = getattr(node, "_fields", None)
                words.append(key.name if fields is None else str(fields.index(key.name)))
                node = getattr(node, key.name)
            elif isinstance(key, jax.tree_util.DictKey | jax.tree_util.SequenceKey):
                place = key.key if isinstance(key, jax.tree_util.DictKey) else key.idx
                words.append(str(place))
                node = node[place]
            else:
                words.append(str(key))
        found["/".join(words)] = leaf
    return found


def _described(leaf: Any) -> dict[str, Any]:
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}


def _own_bytes(leaf: jax.Array) -> int:
    return sum(shard.data.nbytes for shard in leaf.addressable_shards if shard.replica_id == 0)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(folder: Path, like: Tree) -> tuple[Tree, dict[str, Any]]:
    """State and notes of a step's folder, of any format.

    Raises:
      StructureError: it is of another structure.
      UserError: it is damaged.
    """
    if not hosts.from_first(storage.exists(folder / INDEX)):
        return earlier_checkpoint.read_orbax(folder, like)
    index = hosts.together(lambda: _read_index(folder))
    check_structure(folder, index, like)
    read = earlier_checkpoint.read_format_1 if index["format"] == 1 else _read_arrays
    found = hosts.together(lambda: read(folder, index, named(like)))
    leaves = [found[name] for name in named(like)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), index["notes"]


def _read_index(folder: Path) -> dict[str, Any]:
    """Raises a UserError for an index that can be none, or is not as it was sealed."""
    try:
        index = json.loads((folder / INDEX).read_bytes())
        arrays, version = index["arrays"], index["format"]
        for array in arrays.values():
            _ = array["dtype"], list(array["shape"])
        if not isinstance(version, int) or not isinstance(index["notes"], dict):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{INDEX} is cut short, or differs from what was written") from error
    # Format 1 had no seal, and a later one may have another: `check_structure` refuses it.
    if version == FORMAT and index.get("seal") != _seal(index):
        raise UserError(f"{INDEX} differs from its seal")
    return index


def _seal(index: dict[str, Any]) -> str:
    """sha256 of all that an index says."""
    said = {name: value for name, value in index.items() if name != "seal"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def check_structure(folder: Path, index: dict[str, Any], like: Tree) -> None:
    """Raises a StructureError that names the parts in which a checkpoint and `like` differ."""

    def text(array: dict[str, Any] | None) -> str:
        if array is None:
            return "missing"
        return f"{array['dtype']}[{','.join(map(str, array['shape']))}]"

    if index["format"] > FORMAT:
        raise StructureError(
            f"checkpoint {folder} has format {index['format']}, and this version reads {FORMAT}: "
            "go on with the version that wrote it"
        )
    theirs = index["arrays"]
    ours = {name: _described(leaf) for name, leaf in named(like).items()}
    differ = [
        f"{name} is {there} there and {here} here"
        for name in sorted(ours | theirs)
        if (there := text(theirs.get(name))) != (here := text(ours.get(name)))
    ]
    if differ:
        more = f"; {len(differ) - 4} more" if len(differ) > 4 else ""
        raise StructureError(
            f"checkpoint {folder} is of another model, optimiser or version: "
            f"{'; '.join(differ[:4])}{more}: go on with what wrote it, or choose another --workdir"
        )


def _read_arrays(folder: Path, index: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    """Raises a UserError for a file that is missing, cut short or changed."""
    where = folder / ARRAYS
    with storage.reached(folder):
        for name, digest in index["sha256"].items():
            if not storage.exists(where / name) or _sha256(where / name) != digest:
                raise UserError(f"{name} is missing, cut short, or differs from its sha256")
        return arrays.read(where, like)


def _reason(error: Exception) -> str:
    """An error's first words; tensorstore's go on for pages."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split()) or type(error).__name__
    full = re.search(r"no space left[^\[]*|file too large|quota exceeded", text, re.IGNORECASE)
    return full[0] if full else re.split(r" \[", text)[0][:160]
