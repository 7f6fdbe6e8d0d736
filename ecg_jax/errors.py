"""The one error that a user is meant to see: a line that says what, where and what to do."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Wrong input. The programs print it as one line and exit with status 2."""


def run_main(main: Callable[[], int | None]) -> None:
    """Runs a program's `main` and turns a `UserError` into one line and exit status 2."""
    try:
        status = main()
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        status = 2
    sys.exit(status or 0)
