"""What every program does first."""

from pathlib import Path

import jax
import pytest

from ecg_jax.runtime import malloc
from ecg_jax.runtime.process import configure  # the real one: `conftest.py` replaces it

PACKAGE = Path(__file__).parents[2] / "ecg_jax"
PROGRAMS = [p for p in sorted(PACKAGE.rglob("*.py")) if "def main(" in p.read_text()]


def test_compiled_programs_and_freed_memory_are_kept(tmp_path, monkeypatch):
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before, called = {name: getattr(jax.config, name) for name in names}, []
    monkeypatch.setattr(malloc, "keep_freed", lambda: called.append(True))
    monkeypatch.setenv("ECG_JAX_CACHE", str(tmp_path))
    try:
        configure()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "xla")
        assert called == [True]
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_every_program_is_set_up(path):
    if path.parent.name != "text":  # those read and print, without JAX
        assert "    process.configure()\n" in path.read_text()
