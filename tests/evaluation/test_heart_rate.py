"""The heart rate of beats that were put there."""

import numpy as np
import pytest

from ecg_jax.evaluation.heart_rate import heart_rate


@pytest.mark.parametrize("rate", [100, 500])
@pytest.mark.parametrize("beats", [42, 75, 180])
def test_beats_in_wander_and_noise(rate, beats):
    rng, t = np.random.default_rng(0), np.arange(10 * rate) / rate
    phase = (t * beats / 60) % 1 * 60 / beats
    qrs = 1000 * np.exp(-0.5 * ((phase - 0.1) / 0.012) ** 2)
    wave = 250 * np.exp(-0.5 * ((phase - 0.3) / 0.04) ** 2)  # T
    wander = 800 * np.sin(2 * np.pi * 0.2 * t)
    ecg = (qrs + wave + wander)[:, None] * rng.uniform(0.3, 1, 12) + rng.normal(0, 30, (len(t), 12))
    found = heart_rate(ecg[None].astype(np.int16), np.array([len(t)]), rate)
    assert found[0] == pytest.approx(beats, rel=0.04)


def test_nothing_to_count():
    flat = np.zeros((2, 1000, 12), np.int16)
    assert np.isnan(heart_rate(flat, np.array([1000, 0]), 100)).all()
