"""Views that differ in their leads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecg_jax.data import augment, lead_views
from ecg_jax.errors import UserError


def test_masks_by_name():
    masks = lead_views.masks([("V6", "I"), "aVL"])
    expected = np.zeros((2, 12), bool)
    expected[0, [0, 11]] = True
    expected[1, 4] = True
    np.testing.assert_array_equal(masks, expected)


@pytest.mark.parametrize("groups, why", [([("I",), ()], "empty"), ([("I", "V7")], "no lead 'V7'")])
def test_bad_groups(groups, why):
    with pytest.raises(UserError, match=why):
        lead_views.masks(groups)


def test_each_view_shows_its_leads_and_has_its_own_augmentation():
    ecg = jnp.ones((4, 2, 16, 12)) * jnp.arange(1, 13)
    shown = lead_views.masks([("I", "II"), ("II", "V1")])
    mask = jnp.ones((4, 12), bool).at[0, 1].set(False)
    augmentation = augment.compose([{"name": "scale"}, {"name": "jitter"}], rate=100)
    x = np.asarray(lead_views.show(augmentation, jax.random.key(0), ecg, mask, shown))
    assert x.shape == ecg.shape
    np.testing.assert_array_equal((x != 0).all(axis=2), np.broadcast_to(shown, (4, 2, 12)))
    np.testing.assert_array_equal((x != 0).any(axis=2), np.broadcast_to(shown, (4, 2, 12)))
    gain = x.mean(axis=2)[:, :, 1].ravel()  # lead II is in both views
    assert len(np.unique(gain.round(3))) == 8  # a draw for each of 4 records and 2 views
    noise = x[0, :, :, 1].std(axis=-1)  # where the record has no lead II, it gets no noise
    assert np.all(noise < 1e-6) and np.all(x[1, :, :, 1].std(axis=-1) > 1e-3)
