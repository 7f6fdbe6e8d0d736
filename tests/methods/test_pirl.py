"""PIRL: its pieces, its memory bank and the negatives that are drawn from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import linen as nn
from tiny import unit

from configs import pirl as recipe
from ecg_jax.errors import UserError
from ecg_jax.methods import Plan, View, pirl
from ecg_jax.methods.shared.towers import Towers
from ecg_jax.models.siamese import Outputs
from ecg_jax.runtime import parallel

B, T, D, RECORDS = 8, 160, 8, 37
TAU, LAMBDA = 0.07, 0.3


@pytest.fixture
def config():
    c = recipe.get_config()
    c.rate, c.batch_size, c.shards = 100, B, 8
    c.augment = ()
    c.model.width, c.model.dim, c.model.negatives = 4, D, 36
    c.model.jigsaw_weight, c.model.bank_momentum = LAMBDA, 0.75
    return c


@pytest.fixture
def view():
    ecg = jax.random.normal(jax.random.key(0), (B, T, 12))
    rows = jnp.array([36, 0, 5, 17, 9, 30, 2, 11])
    return View(ecg, jnp.ones((B, 12), bool), jnp.zeros((B, 0)), rows, rows, rows)


def test_negatives_are_all_other_records_and_no_padding():
    rows = jnp.array([0, 5, 36])
    drawn = pirl.draw_negatives(jax.random.key(0), rows, jnp.int32(RECORDS), 40, RECORDS - 1)
    for row, negatives in zip(rows, np.asarray(drawn), strict=True):
        assert sorted([*negatives, row]) == list(range(RECORDS))


def test_negatives_are_drawn_evenly():
    keys = jax.random.split(jax.random.key(0), 2000)
    draw = jax.vmap(lambda key: pirl.draw_negatives(key, jnp.array([3]), jnp.int32(10), 16, 2))
    counts = np.bincount(np.asarray(draw(keys)).ravel(), minlength=10)
    assert counts[3] == 0
    others = np.delete(counts, 3)
    assert np.abs(others - 4000 / 9).max() < 5 * np.sqrt(4000 / 9)


@pytest.mark.parametrize("devices", [1, 8])
def test_the_bank_keeps_a_running_mean_of_unit_vectors(devices):
    rng = np.random.default_rng(0)
    bank, f = unit(rng.standard_normal((40, D))), unit(rng.standard_normal((B, D)))
    row = np.array([36, 0, 5, 17, 9, 30, 2, 11])
    sharding = parallel.by_record(parallel.make_mesh(jax.devices()[:devices]))
    put = [parallel.put(x, sharding) for x in (bank.astype(np.float32), row, f.astype(np.float32))]
    expected = bank.copy()
    expected[row] = unit(0.75 * bank[row] + 0.25 * f)

    def remember(bank, row, f):
        return pirl.remember(bank[row], row, f, 0.75).into(bank)

    np.testing.assert_allclose(jax.jit(remember, out_shardings=sharding)(*put), expected, atol=1e-6)


def test_the_bank_starts_random_of_unit_length_and_divides(config):
    memory = pirl.build(config).memory({}, {}, Plan(RECORDS, 100))
    assert memory["bank"].shape == (40, D) and memory["records"] == RECORDS
    np.testing.assert_allclose(jnp.linalg.norm(memory["bank"], axis=1), 1, atol=1e-6)
    assert np.linalg.matrix_rank(memory["bank"]) == D
    config.seed = 1
    other = pirl.build(config).memory({}, {}, Plan(RECORDS, 100))
    assert not np.allclose(memory["bank"], other["bank"])


def test_loss_and_bank(config, view, monkeypatch):
    """Equations 3 to 5, with every other record as a negative; a stand-in for the encoder gives
    f and g."""
    projection = jax.random.normal(jax.random.key(1), (12, D))

    def train(self, params, state, x):
        z = jnp.tensordot(jnp.abs(x), projection, 1)
        if x.ndim == 4:  # whole records [B, 1, T, 12]
            return Outputs(z, z.mean(axis=2)), {"batch_stats": {"of": "whole"}}
        weights = jnp.arange(1.0, x.shape[2] + 1)  # pieces [B, 1, K, T, 12]
        return jnp.einsum("k,bvktd->bvd", weights, z), {"batch_stats": {"of": "pieces"}}

    monkeypatch.setattr(Towers, "train", train)
    method = pirl.build(config)
    memory = method.memory({}, {}, Plan(RECORDS, 100))
    state = {"batch_stats": {}, "memory": memory}
    key = jax.random.key(3)
    value, (new, metrics) = method.loss({}, state, view, key)

    bank = np.asarray(memory["bank"], np.float64)
    rows = np.asarray(view.row)
    pieces = np.asarray(pirl.jigsaw(jax.random.split(key, 3)[1], view.ecg, 5), np.float64)
    table = np.asarray(projection, np.float64)
    f = unit(np.abs(np.asarray(view.ecg, np.float64)).mean(axis=1) @ table)
    g = unit(np.einsum("k,bktc->bc", np.arange(1.0, 6), np.abs(pieces)) @ table)

    def nce(query):
        total = 0.0
        for q, row in zip(query, rows, strict=True):
            e = np.exp(bank[:RECORDS] @ q / TAU)
            h = e / e.sum()
            total -= np.log(h[row]) + np.log(1 - np.delete(h, row)).sum()
        return total / B

    np.testing.assert_allclose(value, LAMBDA * nce(g) + (1 - LAMBDA) * nce(f), rtol=1e-5)
    expected = bank.copy()
    expected[rows] = unit(0.75 * bank[rows] + 0.25 * f)
    np.testing.assert_allclose(new["memory"]["bank"].into(memory["bank"]), expected, atol=1e-6)
    assert new["memory"]["records"] == RECORDS
    assert new["batch_stats"] == {"of": "whole"}
    np.testing.assert_allclose(metrics["bank_cosine"], np.sum(bank[rows] * f, 1).mean(), atol=1e-6)


class Small(nn.Module):
    """An encoder that compiles quickly."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x)))
        return x.mean(axis=1)


@pytest.mark.parametrize("chunks", [1, 2])
def test_every_parameter_learns_and_the_state_keeps_its_form(config, view, chunks, monkeypatch):
    monkeypatch.setattr(pirl, "encoder", lambda config: Small())
    config.accumulate = chunks
    method = pirl.build(config)
    params, state = method.init(jax.random.key(0), view)
    assert set(params) == {"encoder", "projector", "piece_head", "puzzle_head"}
    state = {**state, "memory": method.memory(params, state, Plan(RECORDS, 100))}
    run = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
    (value, (new, _)), gradient = run(params, state, view, jax.random.key(1))
    assert jnp.isfinite(value)
    new = tiny.written(new, state)
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)
    # BatchNorm takes away what a layer's bias before it adds.
    del gradient["encoder"]["Dense_0"]["bias"]
    assert all(jnp.linalg.norm(leaf) > 1e-4 for leaf in jax.tree.leaves(gradient))
    assert method.rows == ("bank",)


@pytest.mark.parametrize("pieces", [1, 10])
def test_bad_pieces(config, pieces):
    config.model.pieces = pieces
    with pytest.raises(UserError, match=r"model.pieces=.* at least 2 pieces of at least 1 s"):
        pirl.build(config)


def test_bad_momentum(config):
    config.model.bank_momentum = 1.0
    with pytest.raises(UserError, match=r"model.bank_momentum=1.0: must be in \[0, 1\)"):
        pirl.build(config)


@pytest.mark.parametrize("negatives", [0, RECORDS])
def test_bad_negatives(config, negatives):
    config.model.negatives = negatives
    with pytest.raises(UserError, match="choose 1 to 36"):
        pirl.build(config).memory({}, {}, Plan(RECORDS, 100))
