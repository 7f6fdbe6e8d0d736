"""One of several processes, one of which fails in a way that the others wait for in vain.

`failing.py HOW WHO FLAGS`: process WHO fails, once all have met.
"""

import argparse
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

import jax
import numpy as np

from ecg_jax.errors import UserError, run_main
from ecg_jax.runtime import hosts, parallel
from ecg_jax.runtime.checkpoint import Checkpoints


def wrong():
    raise UserError("a disk is full: make room")


def fail(how):
    if how == "error":
        wrong()
    if how == "fault":
        raise ValueError("this should not be")
    if how == "thread":  # as the readers of a stream raise
        from concurrent.futures import ThreadPoolExecutor

        ThreadPoolExecutor().submit(wrong).result()
    if how == "file":
        open("/no/such/file")  # noqa: PTH123, SIM115
    if how == "elsewhere":
        hosts.share("elsewhere")


def save(full):
    """A checkpoint of which each process writes a part; the disk of one of them is full."""
    folder = hosts.from_first(tempfile.mkdtemp())
    if full:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    rows = jax.device_put(np.ones((8, 1000), np.float32), parallel.by_record(parallel.make_mesh()))
    saves = Checkpoints(Path(folder))
    saves.save(1, {"bank": rows}, {})
    hosts.together(saves.close)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("how")
    parser.add_argument("who", type=int)
    for field in hosts.FLAGS:
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    args = vars(parser.parse_args())
    how, who = args.pop("how"), args.pop("who")
    hosts.start(hosts.Address(**args))
    hosts.share("all are here")
    print(f"failing at {time.time()}", file=sys.stderr, flush=True)
    if how == "writer":
        save(jax.process_index() == who)
    if jax.process_index() == who:
        fail(how)
    if how == "finished":  # others have ended, and wait for this one at JAX's barrier
        if jax.process_index() == who:
            time.sleep(2)
            wrong()
        return
    hosts.from_first(1)
    threading.Event().wait()


if __name__ == "__main__":
    run_main(main)
