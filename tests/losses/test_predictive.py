"""CPC's InfoNCE against a float64 oracle written from the paper's equation 4."""

import jax
import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import logsumexp

from ecg_jax import parallel
from ecg_jax.losses.predictive import predictive_nce

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
    arrays = embeddings if further else (*embeddings[:2], None)
    sharding = parallel.by_record(parallel.make_mesh(jax.devices()[:devices]))
    args = [None if x is None else parallel.put(x.astype(np.float32), sharding) for x in arrays]
    run = jax.jit(jax.value_and_grad(predictive_nce, (0, 1), has_aux=True))
    (value, accuracy), gradients = run(*args)
    np.testing.assert_allclose((value, accuracy), oracle(*arrays), rtol=1e-5)
    for i, gradient in enumerate(gradients):

        def of_one(flat, i=i):
            moved = list(arrays)
            moved[i] = flat.reshape(arrays[i].shape)
            return oracle(*moved)[0]

        numeric = approx_fprime(arrays[i].ravel(), of_one, 1e-6).reshape(arrays[i].shape)
        np.testing.assert_allclose(gradient, numeric, atol=1e-5)
    assert 0 < accuracy < 1
