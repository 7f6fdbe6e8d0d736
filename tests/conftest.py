"""Eight simulated devices for every test, and where the real recordings are."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real recordings (ptb-xl/, mitdb/, cpsc2018/); skips without one."""
    folder = os.environ.get("ECG_JAX_TEST_DATA")
    if not folder:
        pytest.skip("ECG_JAX_TEST_DATA names no folder with the real recordings")
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the test session's own."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["ECG_JAX_CACHE"] = str(folder)
    return folder
