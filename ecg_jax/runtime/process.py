"""How a program's process is set up; every program that computes begins with it."""

import os

import jax

from ecg_jax.runtime import cache, malloc


def configure() -> None:
    """Keeps compiled programs for the next start, and freed memory for the next step. To be called
    before JAX's first use.

    What the user's environment says of the compilation cache stands. Process 0 writes to it, and
    all read: machines that share `ECG_JAX_CACHE` compile once.
    """
    malloc.keep_freed()
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(cache.folder("xla")))
    if not os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
