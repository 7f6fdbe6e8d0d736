"""The one error that a user is meant to see: a line that says what, where and what to do."""

import errno
import signal
import sys
from collections.abc import Callable

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(Exception):
    """Wrong input. The programs print it as one line and exit with status 2."""


class NoFigureError(UserError):
    """Too few records or labels for one figure; others may still be had."""


def run_main(main: Callable[[], int | None]) -> None:
    """Runs a program's `main`; a `UserError`, and a file that cannot be read or written, is one
    line and exit status 2. Once it has ended, SIGTERM changes nothing: closing takes a moment."""
    try:
        status = main()
    except UserError as error:
        status = _say(str(error))
    except OSError as error:
        if error.filename is None and error.errno not in DISK_FULL:
            raise
        status = _say(f"{error.filename or 'writing a file'}: {error.strerror}")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(status or 0)


def _say(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
