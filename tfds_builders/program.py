"""How the program meets the machine: Ctrl-C, pipes that close, users without a name."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

INTERRUPTED, PIPE_CLOSED = 130, 141  # what a shell calls a program that these have ended


def run_program(main: Callable[[], int]) -> NoReturn:
    """Ends with `main`'s status; Ctrl-C is one line, once what was half written is removed."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that knows no µ gets its number
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        status = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with contextlib.suppress(OSError):
            print("\nstopped by Ctrl-C", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)  # threads that are reading end with the process
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = PIPE_CLOSED
    sys.exit(status)


def nameless_owners() -> None:
    """Lets TFDS write as a user without a name, as `docker run --user 12345` makes one: etils'
    `stat`, by which it asks for sizes, looks the owner's name up, and fails without one."""
    from etils.epath import backend, stat_utils

    known = backend._OsPathBackend.stat
    if known.__name__ == "stat_of_any":
        return

    def stat_of_any(self: backend.Backend, path: str) -> stat_utils.StatResult:
        try:
            return known(self, path)  # type: ignore[arg-type]
        except KeyError:
            found = os.stat(path)  # noqa: PTH116
            return stat_utils.StatResult(
                is_directory=os.path.isdir(path),  # noqa: PTH112
                length=found.st_size,
                mtime=int(found.st_mtime),
                owner=None,
                group=None,
                mode=found.st_mode,
            )

    backend._OsPathBackend.stat = stat_of_any  # type: ignore[method-assign]
