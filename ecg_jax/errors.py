"""The one error that a user is meant to see: a line that says what, where and what to do."""

import errno
import signal
import sys
from collections.abc import Callable

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
    line and exit status 2, on all processes of a run. Once it has ended, SIGTERM changes nothing:
    closing takes a moment."""
    try:
        status = main()
    except UserError as error:
        status = _say(str(error))
    except OSError as error:
        if error.filename is None and error.errno not in DISK_FULL:
            _fault(error)
            raise
        status = _say(f"{error.filename or 'writing a file'}: {error.strerror}")
    except (Exception, KeyboardInterrupt) as error:
        _fault(error)
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(status or 0)


def _say(message: str) -> int:
    if tell_others:
        tell_others(message, False)
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _fault(error: BaseException) -> None:
    """A fault of the program: a traceback where it happened, and a line for the others."""
    if tell_others:
        tell_others(f"{type(error).__name__}: {error}"[:400], True)
