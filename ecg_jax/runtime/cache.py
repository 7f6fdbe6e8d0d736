"""Where what can be computed again is kept between runs."""

import os
from pathlib import Path


def folder(name: str) -> Path:
    """A folder of the cache: below `ECG_JAX_CACHE`, or the user's cache folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ecg_jax"
    return Path(os.environ.get("ECG_JAX_CACHE") or home) / name
