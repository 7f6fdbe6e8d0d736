"""`python -m ecg_jax.train` with two residual blocks, and a fault on one of its processes.

`FAULT` in the environment is JSON: its `kind` (see `KINDS`), the `process` that has it, and the
`step` of this start, counted from 1, at which it comes.
"""

import json
import os
import resource
import signal
import time

import agreement
import jax

from ecg_jax import train
from ecg_jax.errors import UserError, run_main
from ecg_jax.models import resnet1d

KINDS = ("kill", "stop", "error", "fault", "full", "slow")
SLOW_SECONDS = 1.0
FULL_BYTES = 2**16


def strike(kind):
    """What befalls a process between two of its steps."""
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "stop":
        os.kill(os.getpid(), signal.SIGTERM)
    if kind == "error":
        raise UserError("a fault of the campaign: start again")
    if kind == "fault":
        raise RuntimeError("a fault of the campaign")
    if kind == "full":  # to orbax a file too large is as a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_BYTES, resource.RLIM_INFINITY))
    if kind == "slow":
        time.sleep(SLOW_SECONDS)


def disturbed(fault):
    """`train.make_dispatch` with a fault in it."""
    make, made = train.make_dispatch, 0

    def with_fault(*args):
        dispatch = make(*args)

        def run(*args):
            nonlocal made
            made += 1
            due = made >= fault["step"] if fault["kind"] == "slow" else made == fault["step"]
            if due and jax.process_index() == fault["process"]:
                strike(fault["kind"])
            return dispatch(*args)

        return run

    return with_fault


if __name__ == "__main__":
    resnet1d.STAGES = agreement.SHALLOW
    if fault := json.loads(os.environ.get("FAULT", "null")):
        train.make_dispatch = disturbed(fault)
    run_main(train.main)
