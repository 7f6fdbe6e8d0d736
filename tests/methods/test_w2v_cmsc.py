"""wav2vec 2.0 with CMSC: what its parts are given, and what it refuses. Its losses are in
tests/losses/test_masked_nce.py."""

from unittest import mock

import agreement
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from configs import cmsc, w2v, w2v_cmsc_rlm
from ecg_jax.errors import UserError
from ecg_jax.methods import build
from ecg_jax.methods.shared.towers import Towers

SECONDS = 5.0


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    agreement.shallow(monkeypatch.setattr)


def config(file=w2v_cmsc_rlm, **model):
    c = file.get_config("rate=100")
    c.update(batch_size=tiny.B, shards=8, seconds=SECONDS)
    c.model.update(model)
    return c


def view(seed=0):
    return tiny.view(seed, samples=500)


def terms(c, method=None):
    method = method or build(c)
    params, state = jax.jit(method.init)(jax.random.key(0), view())
    loss, (_, metrics) = jax.jit(method.loss)(params, state, view(), jax.random.key(1))
    return float(loss), {name: float(x) for name, x in metrics.items()}


def test_the_loss_is_the_sum_of_its_terms():
    loss, of = terms(config())
    wanted = of["local"] + of["global"] + 0.1 * of["diversity"] + 10 * of["penalty"]
    assert loss == pytest.approx(wanted, rel=1e-5)
    assert of["local"] == pytest.approx(np.log(101), abs=1.0)
    assert of["gumbel_temperature"] == 2.0


def test_either_part_alone():
    loss, of = terms(config(w2v))
    assert "global" not in of and loss == pytest.approx(
        of["local"] + 0.1 * of["diversity"] + 10 * of["penalty"], rel=1e-5
    )
    loss, of = terms(config(cmsc, encoder="s4"))
    assert "local" not in of and loss == of["global"]


def test_each_segment_loses_leads_of_its_own():
    seen, train = [], Towers.train

    def watched(self, params, state, x, *rest):
        seen.append(x)
        return train(self, params, state, x, *rest)

    method = build(config())
    params, state = jax.eval_shape(method.init, jax.random.key(0), view())

    def shown(params, state):
        method.loss(params, state, view(), jax.random.key(1))
        return seen.pop()

    filled = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (params, state))
    with mock.patch.object(Towers, "train", watched):
        x = np.asarray(jax.jit(shown)(*filled))
    there = (x != 0).any(axis=2)
    assert x.shape == (tiny.B, 2, 250, 12) and there.any(axis=2).all()
    assert 0.35 < there.mean() < 0.65 and (there[:, 0] != there[:, 1]).any(axis=1).mean() > 0.9
    halves = np.asarray(view().ecg).reshape(tiny.B, 2, 250, 12)
    np.testing.assert_array_equal(x, np.where(there[:, :, None], halves, 0))


def test_a_record_is_seen_segment_by_segment():
    method = build(config())
    params, state = jax.jit(method.init)(jax.random.key(0), view())
    encode = jax.jit(method.encode)
    ecg, leads = view().ecg, view().lead_mask
    whole, first, second = (
        encode(params, state, x, leads) for x in (ecg, ecg[:, :250], ecg[:, 250:])
    )
    np.testing.assert_allclose(whole.features, (first.features + second.features) / 2, atol=1e-5)
    np.testing.assert_allclose(whole.map, jnp.concatenate([first.map, second.map], 1), atol=1e-5)


def test_recipes_of_paper_and_code():
    code, paper = (w2v_cmsc_rlm.get_config(recipe) for recipe in ("code", "paper"))
    assert (code.model.size, code.model.group, code.batch_size) == ("base", 64, 512)
    assert code.model.strides == (2, 2, 2, 2) and code.model.penalty == 10
    assert paper.model.contrast == "paper" and paper.model.penalty == paper.model.diversity == 0
    with pytest.raises(ValueError, match="choose one"):
        w2v_cmsc_rlm.get_config("paper,code")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "both"}, r"kind=both: choose one of w2v_cmsc, w2v, cmsc"),
        ({"encoder": "resnet1d"}, r"hides tokens, and resnet1d has none"),
        ({"encoder": "vit"}, r"hides tokens, and vit has none"),
        ({"size": "huge"}, r"model\.size=huge: wav2vec2 has small"),
        ({"width": 8}, r"model\.width=8 is of resnet1d: wav2vec2 has --config\.model\.size"),
        ({"group": 3}, r"group=3: 0, or 2 or more records that divide a batch of 16"),
        ({"masked": 0.01}, r"masked=0\.01 hides 0 of 41 tokens in a segment of 2\.5 s"),
        ({"dropout": 1.0}, r"dropout=1\.0: must be in \[0, 1\)"),
        ({"penalty": -1.0}, r"penalty=-1\.0: must not be negative"),
        ({"contrast": "own"}, r"contrast=own: choose one of corrected, code, paper"),
        ({"extractor": "batch"}, r"extractor=batch: choose one of group, layer"),
    ],
)
def test_bad_input(fields, message):
    with pytest.raises(UserError, match=message):
        build(config(**fields))


def test_segments_that_are_too_short():
    c = config()
    c.seconds = 1.5
    with pytest.raises(UserError, match=r"halves records of 1\.5 s, and a segment needs 1 s"):
        build(c)
