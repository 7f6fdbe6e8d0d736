"""CMC: its sum over lead groups, and which leads the encoder sees."""

import itertools

import agreement
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import log_softmax
from tiny import unit

from configs import cmc as recipe
from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError
from ecg_jax.methods import View, cmc
from ecg_jax.methods.shared import towers
from ecg_jax.methods.shared.towers import Towers
from ecg_jax.models.siamese import Outputs
from ecg_jax.runtime import parallel

K, V, D, TAU = 16, 3, 4, 0.07


@pytest.fixture
def config():
    c = recipe.get_config()
    c.rate, c.batch_size, c.shards = 100, 8, 8
    c.model.width, c.model.hidden, c.model.dim = 4, 8, 8
    return c


@pytest.fixture
def view():
    B, T = 8, 128
    ecg = jax.random.normal(jax.random.key(0), (B, T, 12))
    rows = jnp.arange(B)
    return View(ecg, jnp.ones((B, 12), bool), jnp.zeros((B, 0)), rows, rows, rows)


def oracle(z, graph):
    """Equations 2 and 3 in both directions, summed as section 3.3 says."""
    total = 0.0
    for i, j in itertools.combinations(range(z.shape[1]), 2):
        if graph == "full" or i == 0:
            logits = z[:, i] @ z[:, j].T / TAU
            total -= np.mean(np.diag(log_softmax(logits, axis=1)))
            total -= np.mean(np.diag(log_softmax(logits, axis=0)))
    return total


@pytest.mark.parametrize("graph", ["full", "core"])
@pytest.mark.parametrize("devices", [1, 8])
def test_value_and_gradient(graph, devices):
    z = unit(np.random.default_rng(0).standard_normal((K, V, D)))
    sharding = parallel.by_record(parallel.make_mesh(jax.devices()[:devices]))
    run = jax.jit(jax.value_and_grad(lambda z: cmc.multiview(z, graph, TAU)))
    value, gradient = run(parallel.put(z.astype(np.float32), sharding))
    np.testing.assert_allclose(value, oracle(z, graph), rtol=1e-5)
    numeric = approx_fprime(z.ravel(), lambda x: oracle(x.reshape(z.shape), graph), 1e-7)
    np.testing.assert_allclose(gradient, numeric.reshape(z.shape), atol=5e-5)


def test_core_view_has_all_edges_and_the_others_none_among_themselves():
    assert cmc.pairs(4, "core") == [(0, 1), (0, 2), (0, 3)]
    assert cmc.pairs(4, "full") == list(itertools.combinations(range(4), 2))


def test_the_encoder_sees_one_group_at_a_time(config, view, monkeypatch):
    seen = []

    def train(self, params, state, x):
        seen.append(np.asarray(x))
        leads = jnp.abs(x).sum(axis=2)
        return Outputs(leads, leads @ jax.random.normal(jax.random.key(1), (12, D))), {}

    monkeypatch.setattr(Towers, "train", train)
    config.augment = ()
    method = cmc.build(config)
    value, (state, metrics) = method.loss({}, {"batch_stats": {}}, view, jax.random.key(2))
    ecg, x = np.asarray(view.ecg), seen[0]
    for i, group in enumerate(config.model.groups):
        shown = np.isin(LEADS, group)
        np.testing.assert_array_equal(x[:, i], np.where(shown, ecg, 0))
    projection = np.asarray(jax.random.normal(jax.random.key(1), (12, D)), np.float64)
    z = unit(np.abs(x.astype(np.float64)).sum(axis=2) @ projection)
    np.testing.assert_allclose(value, oracle(z, "full"), rtol=1e-5)
    assert state == {"batch_stats": {}} and "positive_cosine" in metrics


def test_evaluation_shows_one_group_at_a_time(config, view, monkeypatch):
    """As pre-training does; all leads at once are what the encoder has never seen."""
    agreement.shallow(monkeypatch.setattr)
    groups = config.model.groups
    method = cmc.build(config)
    params, state = jax.jit(method.init)(jax.random.key(0), view)
    features, embedding, *_ = jax.jit(method.encode)(params, state, view.ecg, view.lead_mask)
    width, dim = features.shape[1] // len(groups), config.model.dim
    assert embedding.shape == (8, len(groups) * dim)
    np.testing.assert_allclose(jnp.linalg.norm(embedding, axis=1), 1, rtol=1e-5)
    whole = jax.jit(towers.Towers(config, method.encode.__self__.network, second=False).encode)
    for i, group in enumerate(groups):
        x = jnp.where(np.isin(LEADS, group), view.ecg, 0)
        alone = whole(params, state, x, view.lead_mask)
        part = features[:, i * width : (i + 1) * width]
        np.testing.assert_allclose(part, alone.features, rtol=1e-4, atol=1e-5)
        part = embedding[:, i * dim : (i + 1) * dim] * np.sqrt(len(groups))
        np.testing.assert_allclose(part, alone.embedding, rtol=1e-3, atol=1e-5)
    trained, after = jax.jit(method.train_encode)(params, state, view.ecg, view.lead_mask)
    assert trained.shape == features.shape
    config.augment = ()
    _, (wanted, _) = jax.jit(cmc.build(config).loss)(params, state, view, jax.random.key(0))
    ours, theirs = (jax.tree.leaves(s["batch_stats"]["encoder"]) for s in (after, wanted))
    for a, b in zip(ours, theirs, strict=True):  # BatchNorm sees what it sees in pre-training
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_records_need_the_leads_of_all_groups(config):
    assert cmc.build(config).leads == LEADS
    config.model.groups = (("V6", "II"), ("V1",))
    assert cmc.build(config).leads == ("II", "V1", "V6")


@pytest.mark.parametrize(
    "field, value, why",
    [
        ("groups", (("I", "II"),), "two or more"),
        ("groups", (), "two or more"),
        ("groups", (("I",), ()), "empty"),
        ("groups", (("I",), ("Z",)), "no lead 'Z'"),
        ("groups", (("I", "II"), ("V1",), ("II", "I")), "two of them show the same leads"),
        ("graph", "ring", "full, core"),
    ],
)
def test_bad_input(config, field, value, why):
    config.model[field] = value
    with pytest.raises(UserError, match=why):
        cmc.build(config)


def test_views_of_few_leads_lose_none(config):
    config.augment = ({"name": "scale"}, {"name": "lead_mask"})
    with pytest.raises(UserError, match="lead_mask may hide every lead of a view"):
        cmc.build(config)


def test_all_views_are_augmented_alike(config):
    config.augment_second = ({"name": "scale"},)
    with pytest.raises(UserError, match="augment_second"):
        cmc.build(config)
