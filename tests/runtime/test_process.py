"""What every program does first."""

from pathlib import Path

import jax
import pytest

from ecg_jax import __main__
from ecg_jax.runtime import malloc
from ecg_jax.runtime.process import configure  # the real one: `conftest.py` replaces it

PACKAGE = Path(__file__).parents[2] / "ecg_jax"
PROGRAMS = [p for p in sorted(PACKAGE.rglob("*.py")) if "def main(" in p.read_text()]


def test_compiled_programs_and_freed_memory_are_kept(tmp_path, monkeypatch):
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before, called = {name: getattr(jax.config, name) for name in names}, []
    monkeypatch.setattr(malloc, "keep_freed", lambda: called.append(True))
    monkeypatch.setenv("ECG_JAX_CACHE", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    try:
        configure()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "xla")
        assert called == [True]
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def test_what_the_user_says_of_the_compilation_cache_stands(tmp_path, monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setattr(malloc, "keep_freed", lambda: None)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "5")
    seconds = jax.config.jax_persistent_cache_min_compile_time_secs
    configure()
    assert jax.config.jax_compilation_cache_dir == before
    assert jax.config.jax_persistent_cache_min_compile_time_secs == seconds


def test_freed_memory_goes_back_to_the_system_where_there_is_an_accelerator(tmp_path, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    assert not malloc.accelerator(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert malloc.accelerator(tmp_path)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert not malloc.accelerator(tmp_path)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_every_program_is_set_up(path):
    if path.parent.name == "text":  # those read and print, without JAX
        return
    if path.stem == "__main__":  # it calls the others
        programs = {module.rpartition(".")[2] for module, _ in __main__.COMMANDS.values()}
        assert programs - {"prepare"} <= {other.stem for other in PROGRAMS}
        return
    assert "    process.configure()\n" in path.read_text()
