"""The one error that a user is meant to see: a line that says what, where and what to do."""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

INTERRUPTED = 130  # what a shell calls a program that Ctrl-C has ended
PIPE_CLOSED = 141  # and one whose reader has gone, as `head` does
# JAX's of JAX_PLATFORMS that names what is not here, or of a device that another program has.
NO_BACKEND = "Unable to initialize backend"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# What several processes do with an error's line, and whether it is the program's fault; it ends
# them all: `runtime.failure` sets it.
tell_others: Callable[[str, bool], None] | None = None


class UserError(Exception):
    """Wrong input. The programs print it as one line and exit with status 2."""


class NoFigureError(UserError):
    """Too few records or labels for one figure; others may still be had."""


def run_main(main: Callable[[], int | None]) -> None:
    """Runs a program's `main`; a `UserError`, and a file that cannot be read or written, is one
    line and exit status 2, on all processes of a run. Ctrl-C is one line and status 130. Once it
    has ended, SIGTERM changes nothing: closing takes a moment."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that knows no µ gets its number
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        status = main()
        sys.stdout.flush()
    except UserError as error:
        status = _say(str(error))
    except KeyboardInterrupt:
        _interrupted()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = PIPE_CLOSED
    except RuntimeError as error:
        if NO_BACKEND not in str(error):
            _fault(error)
            raise
        asked = os.environ.get("JAX_PLATFORMS")
        status = _say(
            f"JAX_PLATFORMS={asked}: {str(error).splitlines()[0]}" if asked else str(error)
        )
    except OSError as error:
        if error.filename is None and error.errno not in DISK_FULL:
            _fault(error)
            raise
        status = _say(f"{error.filename or 'writing a file'}: {error.strerror}")
    except Exception as error:
        _fault(error)
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(status or 0)


def _interrupted() -> NoReturn:
    """Ends at once, after what was half written has been removed: XLA's threads, which may be
    compiling, do not take an orderly end well."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = "stopped by Ctrl-C"
    if tell_others:
        tell_others(line, False)
    print(line, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(INTERRUPTED)


def heed_interrupts(package: str) -> None:
    """Ctrl-C while one of a package's programs is still being imported is one line, too."""
    started = getattr(sys, "orig_argv", [])
    if "-m" not in started or not any(a.startswith(f"{package}.") for a in started):
        return
    usual = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if issubclass(kind, KeyboardInterrupt):
            _interrupted()
        usual(kind, error, trace)

    sys.excepthook = hook


def _say(message: str) -> int:
    if tell_others:
        tell_others(message, False)
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _fault(error: BaseException) -> None:
    """A fault of the program: a traceback where it happened, and a line for the others."""
    if tell_others:
        tell_others(f"{type(error).__name__}: {error}"[:400], True)
