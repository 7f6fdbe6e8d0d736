import jax.numpy as jnp
import numpy as np
import pytest

from ecg_jax.data.normalize import normalize
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


def test_unknown(batch):
    with pytest.raises(UserError, match="unknown normalisation 'z'"):
        normalize(*batch, "z")
