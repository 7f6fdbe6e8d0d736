"""Augmentations keep shapes and absent leads, differ between records, and do what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecg_jax.data.augment import compose
from ecg_jax.errors import UserError

NAMES = ("scale", "jitter", "shift", "time_mask", "lead_mask", "wander")
RATE, T = 100, 1000


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    mask = np.ones((16, 12), bool)
    mask[:, 5] = False
    ecg = rng.standard_normal((16, T, 12)).astype(np.float32) * mask[:, None]
    return jnp.asarray(ecg), jnp.asarray(mask)


def applied(batch, seed=0, **step):
    return compose([step], RATE)(jax.random.key(seed), *batch)


@pytest.mark.parametrize("name", NAMES)
def test_drawn_anew_for_every_record_and_key(batch, name):
    ecg, mask = applied(batch, name=name)
    assert ecg.shape == batch[0].shape
    assert not ecg[:, :, 5].any()
    assert not mask[:, 5].any()
    again, other = applied(batch, name=name)[0], applied(batch, seed=1, name=name)[0]
    np.testing.assert_array_equal(ecg, again)
    assert (ecg != other).any()
    same = jnp.broadcast_to(batch[0][:1], batch[0].shape), batch[1]
    assert len(np.unique(np.asarray(applied(same, name=name)[0]), axis=0)) > 1


def test_scale_is_one_gain_within_its_bounds(batch):
    ecg, _ = applied(batch, name="scale", low=0.5, high=2.0)
    there = np.asarray(batch[1])[0]
    gain = np.asarray(ecg / batch[0])[:, :, there]
    np.testing.assert_allclose(gain.std(axis=(1, 2)), 0, atol=1e-5)
    assert (gain > 0.499).all() and (gain < 2.001).all()


def test_shift_moves_and_fills_with_zeros(batch):
    ecg, _ = applied(batch, name="shift", fraction=0.3)
    for x, y in zip(np.asarray(batch[0]), np.asarray(ecg), strict=True):
        offset = next(i for i in range(301) if np.array_equal(x[i:], y[: T - i]))
        assert not y[T - offset :].any()


def test_masks_hide_at_most_what_they_say(batch):
    hidden = ~np.asarray(applied(batch, name="time_mask", fraction=0.3)[0]).any(axis=2)
    assert hidden.any() and hidden.sum(axis=1).max() <= 301
    ecg, mask = applied(batch, name="lead_mask", probability=0.95)
    assert (np.asarray(mask).sum(axis=1) >= 1).all()
    np.testing.assert_array_equal(np.asarray(ecg).any(axis=1), np.asarray(mask))


@pytest.mark.parametrize("rate", [100, 500])
def test_wander_is_slow_at_any_rate(rate):
    length = 10 * rate
    zeros = jnp.zeros((4, length, 12)), jnp.ones((4, 12), bool)
    drift, _ = compose([{"name": "wander", "sd": 1.0}], rate)(jax.random.key(0), *zeros)
    power = np.abs(np.fft.rfft(np.asarray(drift), axis=1)) ** 2
    above = np.fft.rfftfreq(length, 1 / rate) > 1.5
    assert power[:, above].sum() < 0.02 * power.sum()
    crossings = (np.diff(np.sign(np.asarray(drift)), axis=1) != 0).sum(axis=1)
    assert crossings.max() <= 11


def test_unknown():
    with pytest.raises(UserError, match="unknown augmentation 'blur'"):
        compose([{"name": "blur"}], RATE)
    with pytest.raises(UserError, match="augmentation scale: "):
        compose([{"name": "scale", "wide": 1}], RATE)
