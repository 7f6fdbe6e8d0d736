"""Where what can be computed again is kept between runs."""

import os
from pathlib import Path

from ecg_jax.runtime import storage


def folder(name: str) -> Path:
    """A folder of the cache: below `ECG_JAX_CACHE`, which several machines may share and which may
    be in an object store, or the user's cache folder.

    Raises:
      UserError: see `storage.path`.
    """
    given = os.environ.get("ECG_JAX_CACHE")
    return (storage.path(given) if given else _home()) / name


def local(name: str) -> Path:
    """The same, on this machine: below `ECG_JAX_LOCAL`, or as `folder` if that is no store."""
    if given := os.environ.get("ECG_JAX_LOCAL"):
        return Path(given) / name
    given = os.environ.get("ECG_JAX_CACHE", "")
    return (_home() if "://" in given or not given else Path(given)) / name


def _home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ecg_jax"
