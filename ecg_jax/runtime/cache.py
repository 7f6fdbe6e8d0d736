"""Where what can be computed again is kept between runs."""

import os
from pathlib import Path

from ecg_jax.errors import UserError
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
        return storage.path(given) / name
    given = os.environ.get("ECG_JAX_CACHE", "")
    return (_home() if "://" in given or not given else storage.path(given)) / name


def _home() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    return (Path(given) if given else home() / ".cache") / "ecg_jax"


def home() -> Path:
    """The user's own folder. Raises a UserError where there is none, as in some containers."""
    try:
        return Path.home()
    except RuntimeError:
        raise UserError(
            "this user has no home folder: say in ECG_JAX_CACHE where computed files are kept"
        ) from None
