"""How the process gets and keeps host memory."""

import ctypes
import os
import sys
from pathlib import Path

# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_freed() -> None:
    """Makes glibc's malloc keep what is freed, instead of giving it back to the system.

    XLA's CPU backend asks for a step's temporaries, hundreds of MiB, as one block and frees it
    after the step. By default that block is unmapped each time, and the next step takes a page
    fault for every 4 KiB of it (docs/performance.md). To be called before JAX starts threads:
    a thread that has an arena of its own goes on mapping its large blocks apart.

    With an accelerator nothing is done: temporaries are in its memory, and what loading the records
    took of the host's goes back to the system.
    """
    if accelerator() or sys.platform != "linux":
        return
    if not hasattr(libc := ctypes.CDLL(None), "mallopt"):
        return
    libc.mallopt(M_ARENA_MAX, 1)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, -1)


def accelerator(root: Path = Path("/dev")) -> bool:
    """Whether JAX will find a GPU or TPU here, as far as can be told without starting it."""
    if "cpu" in os.environ.get("JAX_PLATFORMS", "").split(",")[:1]:
        return False
    names = ("nvidia[0-9]*", "kfd", "accel[0-9]*", "vfio/[0-9]*")
    return any(next(root.glob(name), None) is not None for name in names)
