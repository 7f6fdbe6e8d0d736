"""Several processes as one run: how they find each other, and what they must agree on.

Alone, everything here is the identity.
"""

import dataclasses
import importlib.util
import io
import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from ecg_jax.errors import UserError
from ecg_jax.runtime import failure

LABEL = 88  # bytes of an exchange's name
SHUTDOWN_SECONDS = 60  # that a process which has ended waits for the others
T = TypeVar("T")
Rows = TypeVar("Rows", np.ndarray, list[str])


def _flag(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class Address:
    """Where a run's processes meet; each field is a flag of the programs."""

    coordinator: str = _flag("", "HOST:PORT of process 0; empty: ask the cluster, if there is one")
    processes: int = _flag(0, "how many there are; 1: be alone, whatever the cluster says")
    process: int = _flag(-1, "which of them this is, from 0")
    start_seconds: int = _flag(300, "how long to wait for the others")


FLAGS = dataclasses.fields(Address)


def start(where: Address, env: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes; must come before JAX's first use. Only the first one of several
    prints from here on.

    Where not all come in time, the program says so in one line and ends with status 2: JAX's own
    client would abort it.

    Raises:
      UserError: an incomplete address, or one that process 0 cannot serve.
    """
    _check(where)
    if where.processes == 1 or not (where.coordinator or cluster(env)):
        return
    given = {}
    if where.coordinator:
        _check_port(where)
        given = {
            "coordinator_address": where.coordinator,
            "num_processes": where.processes,
            "process_id": where.process,
            "cluster_detection_method": "deactivate",
        }
    alarm = threading.Timer(where.start_seconds, _give_up, [where])
    alarm.daemon = True
    alarm.start()
    try:
        jax.distributed.initialize(
            **given,
            initialization_timeout=where.start_seconds + 60,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"the processes could not be joined ({reason}): check --coordinator "
            f"{where.coordinator or '(found by the cluster)'}, or be alone with --processes 1"
        ) from error
    finally:
        alarm.cancel()
    failure.watch()
    devices = jax.local_devices()
    print(
        f"process {jax.process_index()} of {jax.process_count()}: {len(devices)} x "
        f"{devices[0].device_kind} of {socket.gethostname()}, pid {os.getpid()}",
        file=sys.stderr,
        flush=True,
    )
    if jax.process_index() > 0:
        sys.stdout = io.StringIO()


def cluster(env: Mapping[str, str]) -> str:
    """What starts several processes here and tells them of each other: `slurm`, `kubernetes`,
    `tpu` or nothing.

    Raises:
      UserError: a pod of an indexed Job that lacks what it takes to find the others.
    """
    if int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in env:
        return "slurm"
    chips = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev").glob("vfio/[0-9]*")]
    if "TPU_WORKER_HOSTNAMES" in env or (chips and importlib.util.find_spec("libtpu")):
        return "tpu"
    if "KUBERNETES_SERVICE_HOST" in env and "JOB_COMPLETION_INDEX" in env:
        if importlib.util.find_spec("kubernetes") is None:
            raise UserError(
                "a pod of an indexed Kubernetes Job without the package that finds the others: "
                "install jax[k8s], or give --coordinator, --processes and --process "
                "(--processes 1 for pods that train apart)"
            )
        return "kubernetes"
    return ""


def _check(where: Address) -> None:
    host, _, port = where.coordinator.rpartition(":")
    if where.coordinator and not (host and port.isdigit() and 0 < int(port) < 65536):
        raise UserError(f"--coordinator {where.coordinator}: not HOST:PORT")
    if where.start_seconds <= 0:
        raise UserError(f"--start_seconds {where.start_seconds}: must be above zero")
    if where.coordinator and where.processes != 1 and not 0 <= where.process < where.processes:
        raise UserError(
            f"--coordinator needs --processes N and --process I with 0 <= I < N; "
            f"they are {where.processes} and {where.process}"
        )
    if not where.coordinator and (where.processes > 1 or where.process >= 0):
        raise UserError("--processes and --process need --coordinator HOST:PORT")


def _check_port(where: Address) -> None:
    """JAX's service crashes on a port that is taken."""
    port = int(where.coordinator.rpartition(":")[2])
    try:
        if where.process == 0:
            socket.create_server(("", port)).close()
    except OSError as error:
        raise UserError(
            f"process 0 cannot serve on port {port} ({error.strerror}): "
            "name another in --coordinator"
        ) from None


def _give_up(where: Address) -> None:
    what = "the processes of the cluster did not all come"
    if where.coordinator:
        what = f"the coordinator {where.coordinator} cannot be reached from process {where.process}"
        if _answers(where.coordinator):
            what = f"not all of {where.processes} processes came to {where.coordinator}"
    print(
        f"error: {what} within {where.start_seconds} s: check that every process runs and that "
        "the port is open (--start_seconds to wait longer)",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)  # the main thread waits in JAX's client, which cannot be interrupted


def _answers(coordinator: str) -> bool:
    host, _, port = coordinator.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except (OSError, ValueError):  # no answer, or a name that no host can have
        return False
    return True


def first() -> bool:
    """Whether this is the process that writes files."""
    return jax.process_index() == 0


def _meet(size: int) -> list[int]:
    """The sizes that the processes bring to an exchange, once all are known to be at the same one.

    Raises:
      UserError: they are not: their programs or options differ.
    """
    label = _place().encode()[:LABEL]
    header = np.zeros(8 + LABEL, np.uint8)
    header[:8] = np.frombuffer(np.int64(size).tobytes(), np.uint8)
    header[8 : 8 + len(label)] = np.frombuffer(label, np.uint8)
    headers = np.asarray(multihost_utils.process_allgather(header)).reshape(-1, len(header))
    labels = [row[8:].tobytes().rstrip(b"\0").decode() for row in headers]
    for process, other in enumerate(labels):
        if other != labels[0]:
            raise UserError(
                f"the processes are not at the same place: process 0 exchanges {labels[0]}, and "
                f"process {process} {other}: start all of them with one command and one "
                "installation"
            )
    return [int(row[:8].view(np.int64)[0]) for row in headers]


def _place() -> str:
    """The function, outside of this module, that asked for an exchange."""
    frame = sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__") == __name__:
        frame = frame.f_back
    return f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}"


def share(text: str) -> list[str]:
    """Every process's text, in the order of the processes."""
    if jax.process_count() == 1:
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    sizes = _meet(len(data))
    padded = np.zeros(max(sizes), np.uint8)
    padded[: len(data)] = data
    rows = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(sizes), -1)
    return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]


def part(N: int) -> np.ndarray:
    """The rows of N that this process reads where each reads a part."""
    return np.arange(jax.process_index(), N, jax.process_count())


def put_together(own: Rows, N: int) -> Rows:
    """All N rows, an array's or a list of texts, of which every process has its `part`."""
    processes = jax.process_count()
    if processes == 1:
        return own
    if isinstance(own, list):
        parts = [json.loads(text) for text in share(json.dumps(own))]
        return [parts[i % processes][i // processes] for i in range(N)]
    _meet(own.nbytes)
    if 0 in own.shape[1:]:  # rows of nothing, as segments are where none are
        return np.zeros((N, *own.shape[1:]), own.dtype)
    padded = np.zeros((-(-N // processes), *own.shape[1:]), own.dtype)
    padded[: len(own)] = own
    parts = np.asarray(multihost_utils.process_allgather(padded))
    return parts.swapaxes(0, 1).reshape(-1, *own.shape[1:])[:N]


def whole(x: Any) -> np.ndarray:
    """An array that may lie in parts on several processes, on each of them."""
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
        _meet(x.nbytes)
        x = multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)


def from_first(value: T) -> T:
    """Process 0's value: an array, or what JSON holds. The others' only name its shape."""
    if jax.process_count() == 1:
        return value
    if isinstance(value, np.ndarray):
        sizes = _meet(value.nbytes)
        if len(set(sizes)) > 1:
            raise UserError(
                f"{_place()}: the processes have arrays of {' and '.join(map(str, sizes))} bytes: "
                "start all of them with one command and one copy of the data"
            )
        return np.asarray(multihost_utils.broadcast_one_to_all(value))  # type: ignore[return-value]
    return json.loads(share(json.dumps(value))[0])


def together(work: Callable[[], T]) -> T:
    """Runs `work` on every process; a UserError or OSError of one becomes a UserError of all, so
    that none waits for a process that has ended."""
    if jax.process_count() == 1:
        return work()
    result, message = None, ""
    try:
        result = work()
    except (UserError, OSError) as error:
        message = str(error) or type(error).__name__
    messages = share(message)
    failed = [i for i, text in enumerate(messages) if text]
    if failed:
        where = "" if len(set(messages)) == 1 else f"process {failed[0]}: "
        raise UserError(where + messages[failed[0]])
    return result  # type: ignore[return-value]


def first_alone(work: Callable[[], None]) -> None:
    """Runs `work` on process 0 while the others wait; what it raises is raised on all."""
    together(lambda: work() if first() else None)


def check_same(what: str, ours: dict[str, Any], advice: str) -> None:
    """Raises a UserError, on all processes, if a field is not the same on all.

    Args:
      what: of the fields, for the message.
      ours: this process's values, as JSON holds them.
      advice: what to do about it.
    """
    zeroth, *others = [json.loads(text) for text in share(json.dumps(ours))]
    for process, theirs in enumerate(others, start=1):
        differ = [
            f"{name} is {zeroth.get(name)!r} on process 0 and {theirs.get(name)!r} on {process}"
            for name in sorted(zeroth | theirs)
            if theirs.get(name) != zeroth.get(name)
        ]
        if differ:
            more = "; ..." if len(differ) > 3 else ""
            raise UserError(f"hosts with different {what}: {'; '.join(differ[:3])}{more}: {advice}")


class Preemption:
    """Whether this process, or any of several, has been asked to end. Several processes answer
    alike at the same step."""

    def __init__(self) -> None:
        self._noted = threading.Event()
        self._polled: int | None = None

    @property
    def asked(self) -> bool:
        return self._noted.is_set()

    def note(self) -> None:
        """For a process that is alone; several leave SIGTERM to JAX."""
        self._noted.set()

    def at(self, step: int) -> bool:
        """To be called with steps that never fall, the same on every process."""
        if jax.process_count() == 1:
            return self.asked
        # JAX chooses a step that no process has reached yet, and says yes at that step only.
        last, self._polled = self._polled, step
        steps = [step] if last is None else range(last + 1, step + 1)
        if any([multihost_utils.reached_preemption_sync_point(s) for s in steps]):
            self._noted.set()
        return self.asked
