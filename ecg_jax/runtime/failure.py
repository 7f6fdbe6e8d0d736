"""One process's error ends all of them, each with the error's line and status 2.

A process that fails leaves its line in the key-value store of JAX's coordination service. In every
process a thread looks for such a line, prints it and ends its process: also while the main thread
waits in a collective, which nothing can interrupt.
"""

import atexit
import contextlib
import json
import os
import sys
import threading
import time
import traceback
from typing import Any, NoReturn

import jax
from jax._src import distributed  # the key-value store has no public name

from ecg_jax import errors

FAILED, ENDED = "ecg_jax/failed", "ecg_jax/ended"
POLL_SECONDS = 0.5
PATIENCE_SECONDS = 8.0  # how long the process that serves the store waits for the others to read
STATUS = 2

_ending = threading.Lock()  # held by the thread that ends the process


def watch() -> None:
    """Begins to watch, in each of several processes; `errors.run_main` then tells the others."""
    client, stop = distributed.global_state.client, threading.Event()
    if client is None:
        return
    watcher = threading.Thread(target=_watch, args=(client, stop), name="failure", daemon=True)
    watcher.start()
    errors.tell_others = tell

    def close() -> None:
        jax.distributed.shutdown()  # waits for the others, one of which may yet fail
        stop.set()
        watcher.join()

    atexit.register(close)


def tell(line: str, fault: bool) -> NoReturn:
    """Prints an error's line here and on all other processes, and ends them all.

    A fault of the program is printed with its traceback, unless another process has failed before:
    the fault is then that a collective lost it.
    """
    _begin()
    client: Any = distributed.global_state.client
    other = _failed(client) if fault else None
    if other:
        line = other
    elif fault:
        traceback.print_exc()
    _print(line)
    with contextlib.suppress(Exception):  # another one has failed before
        client.key_value_set(FAILED, json.dumps([jax.process_index(), line]))
    _end(client)


def _failed(client: Any) -> str | None:
    """The line of a process that has failed; an empty one if the store cannot be asked."""
    try:
        process, line = json.loads(client.key_value_try_get(FAILED))
    except Exception as error:
        return None if "NOT_FOUND" in str(error) else ""
    return line if line.startswith("process ") else f"process {process}: {line}"


def _watch(client: Any, stop: threading.Event) -> None:
    while not stop.wait(POLL_SECONDS):
        line = _failed(client)
        if line == "":
            return  # the store has ended, and JAX's own thread sees to that
        if line:
            _begin()
            _print(line)
            _end(client)


def _begin() -> None:
    if not _ending.acquire(blocking=False):
        threading.Event().wait()  # until the other thread has ended the process


def _print(line: str) -> None:
    print(f"error: {' '.join(line.split())}", file=sys.stderr, flush=True)


def _end(client: Any) -> NoReturn:
    """The store ends with process 0, and JAX aborts whoever has not left by then."""
    state = distributed.global_state
    with contextlib.suppress(Exception):
        client.key_value_set(f"{ENDED}/{state.process_id}", "")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while state.process_id == 0 and time.monotonic() < deadline:
            if len(client.key_value_dir_get(ENDED)) == state.num_processes:
                time.sleep(POLL_SECONDS / 2)  # the last one is just leaving
                break
            time.sleep(POLL_SECONDS / 5)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(STATUS)
