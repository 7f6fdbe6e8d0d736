"""One writer for a folder: two trainings, or two evaluations, would mix their files.

On a file system the lock is the kernel's, which a process that is killed gives back. An object
store has none: there the lock is an object with a time in it, renewed while its owner lives.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from ecg_jax.errors import UserError
from ecg_jax.runtime import hosts, storage

NAME = "lock"
RENEW_SECONDS, STALE_SECONDS = 20, 90
_held: set[str] = set()  # by this process, which may ask twice


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """While this run, on however many processes, is the only one to write to `folder`.

    Raises:
      UserError: on all processes: another one is at it.
    """
    name = str(folder if storage.remote(folder) else folder.absolute())
    if name in _held:
        yield
        return
    with contextlib.ExitStack() as stack:

        def take() -> None:
            kind = _object if storage.remote(folder) else _file
            stack.enter_context(kind(folder / NAME))

        hosts.first_alone(take)
        _held.add(name)
        try:
            yield
        finally:
            _held.discard(name)


def _owner() -> dict[str, str]:
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"host": socket.gethostname(), "process": str(os.getpid()), "since": started}


def _busy(path: Path, text: str) -> UserError:
    try:
        who = json.loads(text)
        by = f" by process {who['process']} of {who['host']} since {who['since']}"
    except (ValueError, KeyError, TypeError):
        by = ""
    return UserError(
        f"{path.parent} is in use{by}: wait until it has ended, or choose another --workdir"
    )


@contextlib.contextmanager
def _file(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            text = file.read()
            file.close()
            if not isinstance(error, BlockingIOError):  # a file system without locks
                yield
                return
            raise _busy(path, text) from None
        # The one before may have removed the file between the two calls.
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            break
        file.close()
    with file:
        file.truncate(0)
        file.write(json.dumps(_owner()))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _object(path: Path) -> Iterator[None]:
    own, ended = _owner() | {"id": uuid.uuid4().hex}, threading.Event()

    def write() -> None:
        path.write_bytes(json.dumps(own | {"time": time.time()}).encode())

    def read() -> tuple[str, dict]:
        try:
            text = path.read_bytes().decode()
            return text, json.loads(text)
        except (FileNotFoundError, ValueError):
            return "", {}

    def renew() -> None:
        while not ended.wait(RENEW_SECONDS):
            with contextlib.suppress(Exception):  # the next one may succeed
                write()

    with storage.reached(path):
        text, found = read()
        if time.time() - found.get("time", 0) < STALE_SECONDS:
            raise _busy(path, text)
        write()
        time.sleep(min(1.0, RENEW_SECONDS))  # of two that wrote at once, the last one has it
        text, found = read()
        if found.get("id") != own["id"]:
            raise _busy(path, text)
    renewing = threading.Thread(target=renew, daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        with storage.reached(path):
            path.unlink(missing_ok=True)
