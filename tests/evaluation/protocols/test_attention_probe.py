"""The attention probe: it begins as the linear probe, and finds what a mean dilutes."""

import numpy as np
import pytest

from ecg_jax.evaluation.figures import metrics
from ecg_jax.evaluation.protocols import attention_probe, linear_probe


def sample(n, seed):
    """Maps [n, 12, 6]: at one position, which channel 0 marks, channel 1 tells the class; at the
    others it is noise."""
    rng = np.random.default_rng(seed)
    maps, y = rng.normal(size=(n, 12, 6)), rng.random((n, 2)) < (0.5, 0.3)
    where = rng.integers(12, size=n)
    maps[np.arange(n), where, 0] = 6
    maps[np.arange(n), where, 1:3] = 2 * y - 1
    return maps.astype(np.float16), y


@pytest.fixture(scope="module")
def data():
    return *sample(1024, 0), *sample(400, 1)


def test_it_starts_as_the_linear_probe_of_the_mean(data, monkeypatch):
    x, y, x_val, y_val = data
    monkeypatch.setattr(attention_probe, "EPOCHS", 0)
    probe = attention_probe.fit(x, y, x_val, y_val)
    means = [maps.mean(axis=1, dtype=np.float32) for maps in (x, x_val)]
    linear = linear_probe.fit(means[0], y, means[1], y_val)
    expected = linear_probe.predict(linear, means[1])
    np.testing.assert_allclose(attention_probe.predict(probe, x_val), expected, atol=5e-3)


def test_it_finds_what_a_mean_dilutes(data, monkeypatch):
    x, y, x_val, y_val = data
    monkeypatch.setattr(attention_probe, "RATE", 3e-2)
    probe = attention_probe.fit(
        x, np.column_stack([y, np.ones(len(y), bool)]), x_val, np.column_stack([y_val, y_val[:, 0]])
    )
    assert probe.path[0][0] == 0 and len(probe.path) == attention_probe.EPOCHS + 1
    best = max(value for _, value in probe.path)
    assert best > probe.path[0][1] + 0.05
    score = attention_probe.predict(probe, x_val)
    assert np.isnan(score[:, 2]).all()  # all training records have it
    assert metrics.macro(metrics.auroc(y_val, score[:, :2])) == pytest.approx(best, abs=1e-6)
