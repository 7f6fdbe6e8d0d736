"""Checkpoints of one run, on local disks and in object stores alike.

    <folder>/<step>/<process>.bin   the arrays' parts that a process writes, one after the other
    <folder>/<step>/index.json      what they are; written last: without it there is no checkpoint

Each process writes the parts that its devices hold (of copies, the first device's), beside the
training; only the copy from the devices is waited for. The index has the arrays' names, shapes and
types, and each part's place and sha256. So a checkpoint says whether it fits before it is read,
whether it is whole when it is, and goes onto any number of devices and processes.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import re
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ecg_jax.errors import UserError
from ecg_jax.runtime import earlier_checkpoint, files, hosts, storage

Tree = Any
FORMAT = 1
INDEX = "index.json"
_saves = itertools.count()  # alike on all processes, which save in one order


@dataclasses.dataclass
class Part:
    """A part of an array: where in it, and where in a file."""

    start: list[int]
    shape: list[int]
    file: str
    offset: int
    sha256: str

    @property
    def place(self) -> tuple[slice, ...]:
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.shape, strict=True))


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
        own = _own_parts(state)
        hosts.together(lambda: self._prepare(step, sum(data.nbytes for *_, data in own)))
        shapes = {name: _described(leaf) for name, leaf in named(state).items()}
        index = {"format": FORMAT, "notes": notes, "arrays": shapes}
        self._writing = threading.Thread(target=self._write, args=(step, own, index, next(_saves)))
        self._writing.start()

    def _prepare(self, step: int, size: int) -> None:
        if not storage.remote(self.folder):
            need = int(1.1 * size) + 2**20
            self.folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self.folder).free < need:
                raise UserError(
                    f"no room for a checkpoint in {self.folder}: {need / 1e6:.1f} MB are needed: "
                    "make room and run the same command again"
                )
        if hosts.first() and storage.exists(self.folder):
            whole = {str(s) for s in self.steps() if s < step}
            for folder in self.folder.iterdir():
                if folder.name not in whole:
                    storage.remove(folder)

    def _write(self, step: int, own: list, index: dict[str, Any], save: int) -> None:
        folder = self.folder / str(step)
        try:
            with storage.reached(folder):
                parts = _write_parts(folder, own)
                posted = hosts.post(f"checkpoint/{save}", json.dumps(parts))
                if not hosts.first():
                    return
                for text in posted:
                    for name, found in json.loads(text).items():
                        index["arrays"][name]["parts"] += found
                files.write_whole(folder / INDEX, json.dumps(index).encode())
                for old in self.steps()[: -self._keep]:
                    storage.remove(self.folder / str(old))
        except Exception as error:
            self._error = error

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
        for step in reversed(steps):
            folder = self.folder / str(step)
            try:
                if hosts.from_first(storage.exists(folder / INDEX)):
                    index = hosts.together(lambda folder=folder: _read_index(folder))
                    check_structure(folder, index, like)
                    tree = hosts.together(lambda f=folder, i=index: _read_tree(f, i, like))
                    return step, tree, index["notes"]
                return step, *earlier_checkpoint.read(folder, like, digests)
            except StructureError:
                raise
            except UserError as error:
                warnings.warn(f"checkpoint {folder} is damaged ({error}): skipped", stacklevel=2)
        if steps:
            raise UserError(f"no checkpoint in {self.folder} is whole: start in a new workdir")
        return None

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
            raise UserError(
                f"could not write a checkpoint in {self.folder}: {_reason(error)}: make room and "
                "run the same command again"
            ) from error

    def close(self) -> None:
        """Waits for what was saved. Raises as `wait` does."""
        self.wait()


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
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "parts": []}


def _own_parts(tree: Tree) -> list[tuple[str, list[int], np.ndarray]]:
    """(name, start, data) of all parts that this process writes, copied from the devices."""
    shards = []
    for name, leaf in named(tree).items():
        for shard in leaf.addressable_shards:
            if shard.replica_id == 0:
                shard.data.copy_to_host_async()
                shards.append((name, [s.start or 0 for s in shard.index], shard.data))
    return [(name, start, np.array(data)) for name, start, data in shards]


def _write_parts(folder: Path, own: list) -> dict[str, list[dict[str, Any]]]:
    """Writes this process's file; name -> its parts."""
    found: dict[str, list[dict[str, Any]]] = {}
    if not own:
        return found
    path, offset = folder / f"{jax.process_index()}.bin", 0
    if not storage.remote(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for name, start, data in own:
            content = data.tobytes()
            part = Part(
                start, list(data.shape), path.name, offset, hashlib.sha256(content).hexdigest()
            )
            found.setdefault(name, []).append(dataclasses.asdict(part))
            file.write(content)
            offset += len(content)
        file.flush()
        if not storage.remote(folder):
            os.fsync(file.fileno())
    return found


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / INDEX).read_bytes())
        _ = index["format"], index["notes"], index["arrays"]
        return index
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{INDEX}: {error}") from error


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


def _read_tree(folder: Path, index: dict[str, Any], like: Tree) -> Tree:
    """Raises a UserError for a part that is missing, cut short or changed."""
    leaves = []
    for name, leaf in named(like).items():
        parts = [Part(**part) for part in index["arrays"][name]["parts"]]
        dtype, sharding = np.dtype(leaf.dtype), getattr(leaf, "sharding", None)
        read: dict[str, np.ndarray] = {}

        def part_of(
            place: Any, shape=leaf.shape, parts=parts, dtype=dtype, read=read
        ) -> np.ndarray:
            spans = [s.indices(n)[:2] for s, n in zip(place, shape, strict=True)]
            key = str(spans)
            if key not in read:
                read[key] = _read_place(folder, parts, dtype, spans)
            return read[key]

        if sharding is None:
            leaves.append(jax.numpy.asarray(part_of([slice(None)] * len(leaf.shape))))
        else:
            leaves.append(jax.make_array_from_callback(leaf.shape, sharding, part_of))
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _read_place(folder: Path, parts: list[Part], dtype: np.dtype, spans: list) -> np.ndarray:
    """What lies between `spans` [(start, stop)] of an array, from the parts that reach into it."""
    out, filled = np.empty([stop - start for start, stop in spans], dtype), 0
    for part in parts:
        both = [
            (max(a, p.start), min(b, p.stop)) for (a, b), p in zip(spans, part.place, strict=True)
        ]
        if any(a >= b for a, b in both):
            continue
        data = _read_part(folder, part, dtype)
        here = tuple(slice(a - s, b - s) for (a, b), (s, _) in zip(both, spans, strict=True))
        there = tuple(slice(a - s, b - s) for (a, b), s in zip(both, part.start, strict=True))
        out[here] = data[there]
        filled += out[here].size
    if filled != out.size:
        raise UserError(f"parts of an array are missing in {INDEX}")
    return out


def _read_part(folder: Path, part: Part, dtype: np.dtype) -> np.ndarray:
    size = int(np.prod(part.shape)) * dtype.itemsize
    path = folder / part.file
    try:
        with storage.reached(path), path.open("rb") as file:
            file.seek(part.offset)
            content = file.read(size)
    except OSError as error:
        raise UserError(f"{part.file}: {error.strerror or error}") from error
    if len(content) != size or hashlib.sha256(content).hexdigest() != part.sha256:
        raise UserError(f"{part.file} is cut short, or differs from its sha256")
    return np.frombuffer(content, dtype).reshape(part.shape)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:160] or type(error).__name__


def digests(tree: Tree) -> dict[str, str]:
    """sha256 of every array of a tree, by its path; all processes call it with theirs."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        data = np.ascontiguousarray(hosts.whole(leaf))
        found[jax.tree_util.keystr(path)] = hashlib.sha256(data.tobytes()).hexdigest()
    return found
