"""Files that are written whole or not at all."""

import contextlib
import io
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ecg_jax.errors import UserError
from ecg_jax.runtime import storage


def write_whole(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Raises a UserError if the file cannot be written; what was there stays then. What is not
    `durable` may be lost, and be found damaged, where the machine fails."""
    if storage.remote(path):  # an object is there whole, or not at all
        with storage.reached(path):
            path.write_bytes(data)
        return
    # Made anew, so that the user's umask says who may read it.
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    except BaseException:  # Ctrl-C
        temporary.unlink(missing_ok=True)
        raise


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, up to a line that was cut short when a run was killed;
    none where there is no file."""
    rows = []
    for line in path.read_bytes().splitlines() if storage.exists(path) else []:
        try:
            rows.append(json.loads(line))
        except (json.JSONDecodeError, UnicodeDecodeError):
            break
    return rows


def write_arrays(path: Path, header: Any, arrays: Mapping[str, Any]) -> None:
    """Writes a compressed npz of arrays and of what JSON can hold about them.

    Raises:
      UserError: the file cannot be written.
    """
    packed = io.BytesIO()
    np.savez_compressed(packed, header=np.array(json.dumps(header)), **arrays)
    write_whole(path, packed.getvalue())


@contextlib.contextmanager
def open_arrays(path: Path) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """The header and the arrays that `write_arrays` wrote, while the file is open.

    Raises:
      UserError: the file is damaged, or whoever reads it here finds that it does not hold what it
        should.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            # NumPy reads no further than an array is long, where its checksum is not looked at yet.
            if part := file.zip.testzip():
                raise ValueError(f"{part[:60]!a} has another checksum")
            yield json.loads(str(file["header"])), file
    except Exception as error:  # zip, zlib, NumPy and JSON each raise their own
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is damaged ({reason}): remove it and evaluate again") from None
