"""Eight simulated devices for every test, and where the real recordings are."""

import fcntl
import functools
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

# Where the machine says so, every program that a test starts compiles all that it imports anew,
# which takes longer than most of what it then does.
os.environ["PYTHONDONTWRITEBYTECODE"] = ""

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile much and compute little: LLVM's optimisation and fusions written in MLIR would take
# most of their time. (Later releases end at the second flag, which they no longer have.)
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0"
    + " --xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith("0.10."),
)

import jax

jax.config.update("jax_num_cpu_devices", 8)


# They begin first, so that no worker waits for another one at the end.
LONGEST = ("test_hosts.py", "test_kill.py", "test_every_method.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--mutations", type=int, default=300, help="how many inputs to mutate (tests/campaign)"
    )
    parser.addoption(
        "--every-kill", action="store_true", help="kill trainers at all points, not at three"
    )
    parser.addoption(
        "--budgets", action="store_true", help="compile the full-size step for a TPU slice: minutes"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture
def as_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs are compiled as for a user: two may agree to the last bit so, and not otherwise."""
    options: dict[str, int | bool] = {"xla_backend_optimization_level": 3}
    if "fusion_emitters" in os.environ["XLA_FLAGS"]:
        options["xla_cpu_use_fusion_emitters"] = True
    monkeypatch.setattr(jax, "jit", functools.partial(jax.jit, compiler_options=options))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real recordings (ptb-xl/, mitdb/, cpsc2018/); skips without one."""
    folder = os.environ.get("ECG_JAX_TEST_DATA")
    if not folder:
        pytest.skip("ECG_JAX_TEST_DATA names no folder with the real recordings")
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of each worker's own; all compiled programs in one, also those of programs that run
    in a test's own process."""
    from ecg_jax.runtime import process

    folder = tmp_path_factory.mktemp("cache")
    os.environ["ECG_JAX_CACHE"] = str(folder)
    compiled = str(of_all_workers(tmp_path_factory) / "xla")
    jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "configure", lambda: None)
        yield folder


def of_all_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the session, which its workers share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with 400 simulated records at 100 Hz, made once for all workers."""
    from tfds_builders import prepare

    base = of_all_workers(tmp_path_factory)
    folder = base / "simulated"
    with (base / "simulated.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            making = tmp_path_factory.mktemp("simulated")
            options = ["simulated", "--rate", "100", "--records", "400", "--data_dir", str(making)]
            assert prepare.main(options) == 0
            making.rename(folder)
    return folder


@pytest.fixture
def small(simulated: Path):
    """`configs/etp.py:demo` with a narrow network and short epochs, on those records."""
    from configs import etp

    config = etp.get_config("demo")
    config.data_dir = str(simulated)
    config.build = False
    config.model.width = 8
    config.model.dim = 32
    config.epochs = 2
    config.batch_size = 64
    config.evaluate.draws = 20
    config.evaluate.tasks = ("super",)
    config.evaluate.select = "super"
    return config
