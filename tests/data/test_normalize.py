import jax.numpy as jnp
import numpy as np
import pytest

from ecg_jax.data.normalize import KINDS, normalize
from ecg_jax.errors import UserError


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    ecg = rng.normal(100, 300, (3, 50, 12)).astype(np.int16)
    mask = np.ones((3, 12), bool)
    mask[1, 4:] = False
    ecg[1, :, 4:] = 0
    return ecg, mask


def test_millivolt(batch):
    np.testing.assert_allclose(normalize(*batch, "millivolt"), batch[0] / 1000, rtol=1e-6)


def test_record_counts_only_the_leads_that_are_there(batch):
    ecg, mask = batch
    out = np.asarray(normalize(jnp.asarray(ecg), jnp.asarray(mask), "record"))
    for i in range(3):
        x = ecg[i][:, mask[i]] / 1000
        np.testing.assert_allclose(out[i][:, mask[i]], (x - x.mean()) / x.std(), atol=1e-3)
        assert not out[i][:, ~mask[i]].any()


def test_lead(batch):
    out = np.asarray(normalize(*map(jnp.asarray, batch), "lead"))
    np.testing.assert_allclose(out[0].std(axis=0), 1, rtol=1e-3)
    assert not out[1, :, 4:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_what_fills_a_shorter_record_changes_nothing(batch, kind):
    ecg, mask = batch
    filled = np.concatenate([ecg, np.zeros((3, 40, 12), np.int16)], axis=1)
    filled[1, 30:] = 0
    out = np.asarray(normalize(jnp.asarray(filled), jnp.asarray(mask), kind))
    for i, end in enumerate((50, 30, 50)):
        alone = normalize(jnp.asarray(ecg[i : i + 1, :end]), jnp.asarray(mask[i : i + 1]), kind)
        np.testing.assert_allclose(out[i, :end], np.asarray(alone[0]), atol=1e-5)
        assert not out[i, end:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_of_zeros_stays_so(kind):
    assert not normalize(jnp.zeros((1, 9, 12), jnp.int16), jnp.ones((1, 12), bool), kind).any()


def test_unknown(batch):
    with pytest.raises(UserError, match="unknown normalisation 'z'"):
        normalize(*batch, "z")
