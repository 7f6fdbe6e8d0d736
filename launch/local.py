"""Runs a program as several processes of this machine.

    python -m launch.local --processes 2 --devices 4 -- \\
        python -m ecg_jax.train --config configs/etp.py:demo --workdir runs/demo

Every process gets the flags by which they find each other. With `--devices`, each simulates so many
CPU devices; with `--gpus`, each sees so many of the machine's GPUs; else JAX's own choice stands.
`--dry_run` prints the commands. The status is that of the first process that failed; the others
are then asked to end. What each ended with, if not all with 0, is printed.
"""

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

GRACE_SECONDS = 60  # to save a checkpoint in, after which a process is killed


def main(argv: Sequence[str] | None = None) -> int:
    usage, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m launch.local",
        description=usage,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--processes", type=int, required=True)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--devices", type=int, default=0, help="simulated CPU devices of each")
    kind.add_argument("--gpus", type=int, default=0, help="GPUs of each")
    parser.add_argument("--port", type=int, default=0, help="of the coordinator; 0: a free one")
    parser.add_argument("--dry_run", action="store_true", help="print the commands")
    parser.add_argument("command", nargs="+", help="the program, after --")
    args = parser.parse_args(argv)
    if args.processes < 1:
        parser.error(f"--processes {args.processes}: at least 1")
    port = args.port or free_port()
    environments = [environment(args.devices, args.gpus, i) for i in range(args.processes)]
    flags = [f"--coordinator=127.0.0.1:{port}", f"--processes={args.processes}"]
    commands = [[*args.command, *flags, f"--process={i}"] for i in range(args.processes)]
    if args.dry_run:
        for extra, command in zip(environments, commands, strict=True):
            print(" ".join([*(f"{k}={v}" for k, v in extra.items()), shlex.join(command)]))
        return 0
    return wait_for(
        [
            subprocess.Popen(command, env={**os.environ, **extra})
            for extra, command in zip(environments, commands, strict=True)
        ]
    )


def environment(devices: int, gpus: int, process: int) -> dict[str, str]:
    """What a process's environment has besides this one's."""
    if devices:
        return {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        }
    if gpus:
        own = range(process * gpus, (process + 1) * gpus)
        return {"CUDA_VISIBLE_DEVICES": ",".join(map(str, own))}
    return {}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(children: list[subprocess.Popen]) -> int:
    """Waits for all; passes SIGTERM and SIGINT on, and ends the others once one has failed."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end(children))
    failed, deadline = 0, float("inf")
    while None in (statuses := [child.poll() for child in children]):
        if any(statuses) and not failed:
            failed = next(filter(None, statuses))
            deadline = time.monotonic() + GRACE_SECONDS
            end(children)
        if time.monotonic() > deadline:
            for child in children:
                child.kill()
        time.sleep(0.1)
    for number, status in enumerate(statuses if any(statuses) else []):
        print(f"process {number} ended with {status}", file=sys.stderr)
    return failed or next(filter(None, statuses), 0)


def end(children: list[subprocess.Popen]) -> None:
    for child in children:
        if child.poll() is None:
            child.terminate()


if __name__ == "__main__":
    sys.exit(main())
