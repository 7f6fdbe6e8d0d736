"""SimCLR: the loss of the projections of two views."""

import jax
import numpy as np
import pytest
import tiny

from configs import simclr
from ecg_jax import methods
from ecg_jax.errors import UserError
from ecg_jax.methods.shared.towers import Towers
from ecg_jax.models.heads import MLP
from ecg_jax.models.siamese import Siamese, encoder
from ecg_jax.run.experiment import open_experiment


def test_loss_is_equation_1_of_the_projections():
    config = tiny.config("simclr")
    method = methods.build(config)
    params, state = tiny.start(method)
    view = tiny.view()
    (value, (new, _)), (gradient, _) = tiny.step(method)(params, state, view)
    network = Siamese(encoder(config), MLP((12, tiny.D)))
    out = tiny.outputs(network, {"params": params, **state}, tiny.two_views(view))
    z = tiny.unit(out.projection).reshape(-1, tiny.D)
    similar = np.exp(z @ z.T / 0.1)
    rows = np.arange(len(z))
    share = similar[rows, rows ^ 1] / (similar.sum(axis=1) - np.diagonal(similar))
    np.testing.assert_allclose(value, -np.log(share).mean(), rtol=1e-4)
    assert new.keys() == state.keys()
    assert all(tiny.largest(gradient[part]) > 0 for part in ("encoder", "projector"))


def test_views_are_drawn_for_every_record_and_key():
    config = tiny.config("simclr")
    towers = Towers(config, Siamese(encoder(config), MLP((12, tiny.D))))
    view = tiny.view()
    view = view._replace(ecg=view.ecg[:1].repeat(tiny.B, axis=0))
    one, two = (jax.jit(towers.views)(jax.random.key(seed), view) for seed in (0, 1))
    assert one.shape == (tiny.B, 2, tiny.T, 12)
    for a, b in ((one[:, 0], one[:, 1]), (one, two), (one[0], one[1])):
        assert np.abs(a - b).max() > 0.1


def test_a_second_view_of_its_own():
    config = tiny.config("simclr")
    config.augment, config.augment_second = (), ({"name": "scale", "low": 2.0, "high": 2.0},)
    towers = Towers(config, Siamese(encoder(config), MLP((12, tiny.D))))
    views = towers.views(jax.random.key(0), tiny.view())
    np.testing.assert_allclose(views[:, 1], 2 * views[:, 0], rtol=1e-5)


def test_bad_input():
    config = tiny.config("simclr")
    config.accumulate = 3
    with pytest.raises(UserError, match="16 does not divide into 3 chunks"):
        methods.build(config)
    config = tiny.config("simclr")
    config.augment = ({"name": "blur"},)
    with pytest.raises(UserError, match="unknown augmentation 'blur'"):
        methods.build(config)
    bare = ("scale", "'scale' is no augmentation with a name: write")
    nameless = ({"sd": 0.1}, "is no augmentation with a name: write")
    for step, why in (bare, nameless):
        config.augment = (step,)
        with pytest.raises(UserError, match=why):
            open_experiment(config)
    config.augment, config.accumulate = (), 16
    with pytest.raises(UserError, match=r"16 in 16 chunks: .* each chunk needs two or more"):
        methods.build(config)
    with pytest.raises(ValueError, match="no config arguments paper, code and text"):
        simclr.get_config("paper")


def test_a_config_of_a_method_that_reads_reports():
    config = tiny.config("etp")
    config.method = "simclr"
    with pytest.raises(UserError, match=r"simclr learns without reports.*use configs/simclr\.py"):
        methods.build(config)
