"""What the mutation campaign calls a reader, and what its results are compared by."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from campaign.mutations import Mutation

Result = dict[str, str]  # what is read, item by item
ONE = 1
ANY = 10**9


class Reader(NamedTuple):
    """A reader of a folder.

    Attributes:
      make: writes what is read, unmutated.
      read: what a folder holds; raises what a user would see.
      free: of a mutation, in how many groups of items the result may differ, and of which names.
      files: suffixes of what is mutated; all if empty.
      skip: of each so many turns of the campaign one is this reader's.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], Result]
    free: Callable[[Mutation], tuple[int, Callable[[str], bool]]]
    files: tuple[str, ...] = ()
    skip: int = 1


def digest(value: Any) -> str:
    if isinstance(value, np.ndarray):
        data = f"{value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    else:
        data = repr(value).encode()
    return hashlib.sha256(data).hexdigest()


def nothing(_: Mutation) -> tuple[int, Callable[[str], bool]]:
    """It has digests: any change is refused, or changes nothing."""
    return 0, lambda item: False


def anything(_: Mutation) -> tuple[int, Callable[[str], bool]]:
    """It says what it is, in a form that can be checked and no more: what is read is another."""
    return ANY, lambda item: True


def files_of(reader: Reader, folder: Path) -> list[str]:
    there = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return [f for f in there if not reader.files or f.endswith(reader.files)]


def clone(source: Path, target: Path) -> None:
    """A copy, quickly: files are small."""
    for folder, _, names in os.walk(source):
        to = target / Path(folder).relative_to(source)
        to.mkdir(parents=True, exist_ok=True)
        for name in names:
            (to / name).write_bytes((Path(folder) / name).read_bytes())
