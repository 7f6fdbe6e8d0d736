"""CPC's InfoNCE against a float64 oracle written from the paper's equation 4."""

import gradient_check
import jax
import numpy as np
import pytest
from scipy.special import logsumexp

from ecg_jax.losses.future_nce import predictive_nce
from ecg_jax.runtime import parallel

B, S, D, N = 8, (2, 3), 4, 5


def oracle(predicted, target, others):
    """-> the loss and the share of predictions whose target comes first, one after the other."""
    total, first = 0.0, 0
    for i, *place in np.ndindex(B, *S):
        scores = [predicted[i, *place] @ target[j, *place] for j in range(B)]
        positive = scores[i]
        if others is not None:
            scores += list(others[i, *place])
        total += logsumexp(scores) - positive
        first += positive == max(scores)
    return total / (B * np.prod(S)), first / (B * np.prod(S))


@pytest.fixture
def embeddings():
    rng = np.random.default_rng(0)
    predicted, target = rng.standard_normal((2, B, *S, D))
    others = rng.standard_normal((B, *S, N))
    others[:, 1, 2, 3] = -np.inf
    return predicted, target, others


@pytest.mark.parametrize("further", [False, True])
@pytest.mark.parametrize("devices", [1, 8])
def test_value_and_gradient(embeddings, further, devices):
    predicted, target, others = embeddings
    others = others if further else None
    sharding = parallel.by_record(parallel.make_mesh(jax.devices()[:devices]))
    there = None if others is None else parallel.put(others.astype(np.float32), sharding)
    gradient_check.check(
        lambda p, t: predictive_nce(p, t, there)[0],
        lambda p, t: oracle(p, t, others)[0],
        (predicted, target),
        devices=devices,
    )
    args = [parallel.put(x.astype(np.float32), sharding) for x in (predicted, target)]
    _, accuracy = jax.jit(predictive_nce)(*args, there)
    np.testing.assert_allclose(accuracy, oracle(predicted, target, others)[1], rtol=1e-5)
    assert 0 < accuracy < 1
