"""CLOCS: segments, leads and patients."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import clocs as recipe
from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError
from ecg_jax.losses.patient import patient_contrast
from ecg_jax.methods import View, clocs
from ecg_jax.methods.shared.towers import Towers
from ecg_jax.models.siamese import Outputs

B, T, D = 8, 256, 6


@pytest.fixture
def config():
    c = recipe.get_config()
    c.rate, c.batch_size, c.shards = 100, B, 8
    c.augment = ()
    c.model.width, c.model.hidden, c.model.dim = 4, 8, 8
    return c


@pytest.fixture
def view():
    ecg = jax.random.normal(jax.random.key(0), (B, T, 12))
    rows = jnp.arange(B)
    return View(ecg, jnp.ones((B, 12), bool), jnp.zeros((B, 0)), rows, rows, rows // 2)


def project(x):
    """A stand-in for the network: [B, V, T, 12] -> [B, V, D], of one lead or several."""
    return x.sum(axis=3) @ jax.random.normal(jax.random.key(1), (x.shape[2], D))


@pytest.fixture
def seen(monkeypatch):
    """What the encoder is given, in place of an encoder."""
    seen = []

    def train(self, params, state, x):
        seen.append(np.asarray(x))
        return Outputs(x.mean(axis=2), project(x)), {}

    monkeypatch.setattr(Towers, "train", train)
    return seen


def step(config, view, seed=2):
    return clocs.build(config).loss({}, {"batch_stats": {}}, view, jax.random.key(seed))


def test_segments_are_adjacent_halves(config, view, seen):
    step(config, view)
    ecg = np.asarray(view.ecg)
    np.testing.assert_array_equal(seen[0], np.stack([ecg[:, : T // 2], ecg[:, T // 2 :]], axis=1))


def shown(x, record):
    """The lead of each view [V], once it is sure that each shows one lead of the record [V, T]."""
    leads = []
    for i in range(x.shape[1]):
        (lead,) = np.flatnonzero(np.abs(x[:, i]).sum(axis=(0, 1)))
        np.testing.assert_array_equal(x[:, i, :, lead], record[i][:, :, lead])
        leads.append(int(lead))
    return leads


def test_leads_are_shown_alone_and_drawn_anew(config, view, seen):
    config.model.kind, config.model.leads_per_step = "cmlc", 4
    for seed in range(4):
        step(config, view, seed)
    ecg = np.asarray(view.ecg)
    draws = [shown(x, [ecg] * 4) for x in seen]
    assert all(len(set(draw)) == 4 for draw in draws)
    assert len({frozenset(draw) for draw in draws}) > 1


def test_segments_and_leads(config, view, seen):
    config.model.kind, config.model.leads, config.model.leads_per_step = "cmsmlc", ("V1", "II"), 2
    step(config, view)
    first, second = np.split(np.asarray(view.ecg), 2, axis=1)
    leads = shown(seen[0], [first, first, second, second])
    assert leads[:2] == leads[2:] and {LEADS[i] for i in leads} == {"V1", "II"}


def test_all_leads_of_the_paper(config, view, seen):
    config.model.kind, config.model.leads_per_step = "cmlc", 12
    step(config, view)
    assert sorted(shown(seen[0], [np.asarray(view.ecg)] * 12)) == list(range(12))


@pytest.mark.parametrize("kind", ["cmsc", "cmlc", "cmsmlc"])
def test_evaluation_shows_what_pre_training_shows(config, view, kind):
    """One lead at a time, where a view is one lead."""
    config.model.kind, config.model.leads, config.model.leads_per_step = kind, ("V1", "II"), 2
    method = clocs.build(config)
    params, state = jax.eval_shape(method.init, jax.random.key(0), view)
    seen = []
    features, *_ = jax.eval_shape(
        lambda *a: seen.append(method.encode.__self__._in_groups(a[2])) or method.encode(*a),
        *(params, state, view.ecg, view.lead_mask),
    )
    assert features.shape == (B, (1 if kind == "cmsc" else 2) * 32)
    x = np.asarray(method.encode.__self__._in_groups(view.ecg))
    if kind == "cmsc":
        np.testing.assert_array_equal(x[:, 0], view.ecg)
    else:
        assert shown(x, [np.asarray(view.ecg)] * 2) == [LEADS.index("V1"), LEADS.index("II")]


def test_the_loss_is_the_mean_over_all_pairs_of_views(config, view, seen):
    config.model.kind, config.model.leads_per_step = "cmsmlc", 2
    value, (_, metrics) = step(config, view)
    z = project(seen[0])
    z /= jnp.linalg.norm(z, axis=-1, keepdims=True)
    pairs = list(itertools.combinations(range(4), 2))
    terms = [patient_contrast(z[:, i], z[:, j], view.patient, 0.1) for i, j in pairs]
    np.testing.assert_allclose(value, sum(terms) / 6, rtol=1e-5)
    assert "positive_cosine" in metrics


def test_records_of_one_patient_are_positives(config, view, seen):
    together, _ = step(config, view)
    apart, _ = step(config, view._replace(patient=view.row))
    assert not np.isclose(together, apart, rtol=1e-3)


def test_which_leads_records_need(config):
    assert clocs.build(config).leads == ()
    config.model.kind, config.model.leads = "cmlc", ("II", "V2", "aVL", "aVR", "II")
    assert clocs.build(config).leads == ("II", "V2", "aVL", "aVR")


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"model.kind": "cmc"}, "cmsc, cmlc, cmsmlc"),
        ({"seconds": 1.5}, "a segment needs 1 s"),
        ({"model.kind": "cmlc", "model.leads_per_step": 1}, "draws 2 or more"),
        ({"model.kind": "cmsmlc", "model.leads_per_step": 13}, "at most all 12"),
        ({"model.kind": "cmlc", "model.leads": ("II", "V9")}, "no lead 'V9'"),
        ({"augment_second": ({"name": "scale"},)}, "augment_second"),
    ],
)
def test_bad_input(config, changes, why):
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=why):
        clocs.build(config)


def test_views_of_one_lead_do_not_lose_it(config):
    config.augment = ({"name": "lead_mask"},)
    config.model.kind = "cmlc"
    with pytest.raises(UserError, match="lead_mask may hide every lead of a view"):
        clocs.build(config)
    config.model.kind = "cmsc"  # all leads are shown
    clocs.build(config)
