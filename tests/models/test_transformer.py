"""The transformer against a float64 oracle written from Vaswani et al. 2017."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from ecg_jax.models.transformer import Transformer

N, S, H, HEADS, LAYERS, MLP = 2, 5, 8, 2, 2, 6
SEEN = np.array([True, True, False, True, False])


@pytest.fixture(scope="module")
def network():
    x = np.random.default_rng(0).standard_normal((N, S, H))
    module = Transformer(LAYERS, HEADS, MLP)
    params = jax.jit(module.init)(jax.random.key(0), jnp.asarray(x), jnp.asarray(SEEN))["params"]
    # Biases and scales that are not 0 and 1.
    noise = np.random.default_rng(1)
    params = jax.tree.map(lambda p: p + 0.1 * noise.standard_normal(p.shape), params)
    return x, params, jax.jit(lambda x: module.apply({"params": params}, x, jnp.asarray(SEEN)))


def norm(x, p):
    x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-6)
    return x * p["scale"] + p["bias"]


def attention(x, p):
    """Section 3.2 for tokens x [S, H], head by head."""
    result = np.zeros((S, H))
    for h in range(HEADS):
        q, k, v = (x @ p[n]["kernel"][:, h] + p[n]["bias"][h] for n in ("query", "key", "value"))
        logits = np.where(SEEN, q @ k.T / np.sqrt(H // HEADS), -np.inf)
        result += softmax(logits, axis=1) @ v @ p["out"]["kernel"][h]
    return result + p["out"]["bias"]


def oracle(x, p):
    for i in range(LAYERS):
        x = x + attention(norm(x, p[f"norm_attention{i}"]), p[f"attention{i}"])
        y = norm(x, p[f"norm_mlp{i}"]) @ p[f"mlp{i}"]["kernel"] + p[f"mlp{i}"]["bias"]
        x = x + np.maximum(y, 0) @ p[f"out{i}"]["kernel"] + p[f"out{i}"]["bias"]
    return x


def test_value(network):
    x, params, apply = network
    exact = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    expected = [oracle(tokens, exact) for tokens in x]
    np.testing.assert_allclose(apply(x), expected, rtol=1e-4, atol=1e-5)


def test_what_is_not_seen_changes_nothing_else(network):
    x, _, apply = network
    other = np.where(SEEN[:, None], x, 7.0)
    np.testing.assert_allclose(apply(other)[:, SEEN], apply(x)[:, SEEN], rtol=1e-5)
    other = np.where(np.arange(S)[:, None] == 3, 7.0, x)
    assert np.abs(apply(other)[:, 0] - apply(x)[:, 0]).max() > 1e-2
