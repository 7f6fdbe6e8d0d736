"""How a program's process is set up; every program that computes begins with it."""

import jax

from ecg_jax.runtime import cache, malloc


def configure() -> None:
    """Keeps compiled programs for the next start, and freed memory for the next step. To be called
    before JAX's first use."""
    malloc.keep_freed()
    jax.config.update("jax_compilation_cache_dir", str(cache.folder("xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
