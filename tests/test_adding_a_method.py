"""docs/adding-a-method.md does what it says: its files are taken out of it, and run."""

import importlib
import importlib.util
import inspect
import itertools
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ecg_jax import methods
from ecg_jax.run.config import check

ROOT = Path(__file__).parent.parent
FILE = re.compile(r"^`([\w/]+\.py)`:\n\n```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NAME = "barlow_twins"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The document's files, where `ecg_jax.methods` and `configs` find theirs."""
    folder = tmp_path_factory.mktemp("document")
    for path, text in FILE.findall((ROOT / "docs" / "adding-a-method.md").read_text()):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)  # configs/ is a namespace, and has parts in both places
        patch.setattr(methods, "__path__", [*methods.__path__, str(folder / "ecg_jax/methods")])
        yield folder
    for name in (f"ecg_jax.methods.{NAME}", f"configs.{NAME}"):
        sys.modules.pop(name, None)
    vars(methods).pop(NAME, None)


def test_a_method_is_three_files_that_are_not_here_yet(folder):
    files = {str(p.relative_to(folder)) for p in folder.rglob("*.py")}
    assert files == {
        f"ecg_jax/methods/{NAME}.py",
        f"configs/{NAME}.py",
        f"tests/methods/test_{NAME}.py",
    }
    assert not any((ROOT / name).exists() for name in files)


def cases(mark):
    """The arguments that a mark `parametrize` stands for."""
    return [{mark.args[0]: value} for value in mark.args[1]]


def test_its_own_tests_pass(folder):
    path = folder / "tests" / "methods" / f"test_{NAME}.py"
    spec = importlib.util.spec_from_file_location(f"document_{NAME}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tests = [f for n, f in inspect.getmembers(module, inspect.isfunction) if n.startswith("test_")]
    assert len(tests) == 4
    for test in tests:
        marks = [cases(mark) for mark in getattr(test, "pytestmark", [])]
        for chosen in itertools.product(*marks):
            test(**{name: value for case in chosen for name, value in case.items()})


def test_it_learns_a_batch_by_heart(folder):
    config = importlib.import_module(f"configs.{NAME}").get_config("demo")
    check(config)
    config.batch_size = config.shards = B = 16
    config.model.update(width=4, hidden=32, dim=8, dtype="float32", convolution="plain")
    config.augment = ({"name": "jitter", "sd": 0.1},)
    method = methods.build(config)
    rng, rows = np.random.default_rng(0), jnp.arange(B)
    ecg = jnp.asarray(rng.standard_normal((B, 128, 12)), jnp.float32)
    view = methods.View(ecg, jnp.ones((B, 12), bool), jnp.zeros((B, 0)), rows, rows, rows)
    params, state = jax.jit(method.init)(jax.random.key(0), view)
    optimizer = optax.adam(3e-3)
    moments = optimizer.init(params)

    @jax.jit
    def step(params, state, moments, i):
        grad = jax.value_and_grad(method.loss, has_aux=True)
        (value, (state, metrics)), gradient = grad(params, state, view, jax.random.key(i))
        change, moments = optimizer.update(gradient, moments, params)
        return optax.apply_updates(params, change), state, moments, value, metrics

    values = []
    for i in range(60):
        params, state, moments, value, metrics = step(params, state, moments, i)
        values.append(float(value))
    assert np.mean(values[-5:]) < 0.2 * values[0]
    assert metrics["positive_cosine"] > metrics["negative_cosine"] + 0.5
