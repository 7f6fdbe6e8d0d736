"""Span masks: their statistics as they are tabulated for the released code, and fixed counts."""

import jax
import numpy as np
import pytest

from ecg_jax.models import span_mask

# Tokens: masked in a row's union; after thinning to the least of 128 rows.
TABLE = {
    156: (77.2, 55.4),
    312: (153.5, 123.1),
    78: (39.1, 23.8),
    62: (31.3, 17.6),
    31: (16.3, 11.0),
}


@pytest.mark.parametrize("P", TABLE)
def test_statistics(P):
    mean, thinned = TABLE[P]
    many = jax.jit(lambda key: span_mask.spans(key, 128, P))
    hidden = np.stack([many(jax.random.key(i)) for i in range(60)])
    count = hidden.sum(axis=2)
    assert count.mean() == pytest.approx(mean, abs=0.6)
    assert count.min(axis=1).mean() == pytest.approx(thinned, abs=1.2)
    assert not hidden[..., -1].any()
    starts = np.diff(np.pad(hidden, [(0, 0), (0, 0), (1, 0)]).astype(int), axis=2) == 1
    ends = np.diff(np.pad(hidden, [(0, 0), (0, 0), (0, 1)]).astype(int), axis=2) == -1
    lengths = np.argwhere(ends)[:, 2] - np.argwhere(starts)[:, 2] + 1
    assert lengths.min() == span_mask.SPAN


def test_a_fixed_number_is_hidden():
    P, M = 156, 55
    chosen = np.asarray(span_mask.fixed(jax.random.key(0), 256, P, M))
    assert chosen.shape == (256, M) and (np.diff(chosen, axis=1) > 0).all()
    k_spans, _ = jax.random.split(jax.random.key(0))
    hidden = np.asarray(span_mask.spans(k_spans, 256, P))
    within = np.take_along_axis(hidden, chosen, axis=1).sum(axis=1)
    np.testing.assert_array_equal(within, np.minimum(hidden.sum(axis=1), M))
    assert (within == M).mean() > 0.9


def test_negatives_are_others_and_even():
    drawn = np.asarray(span_mask.others(jax.random.key(0), 40, 5, 100))
    assert (drawn != np.arange(5)[:, None]).all()
    share = [(drawn[:, 2] == k).mean() for k in (0, 1, 3, 4)]
    np.testing.assert_allclose(share, 0.25, atol=0.03)
