"""SimSiam: the prediction of the other view, with a stop-gradient."""

import functools

import jax
import numpy as np
import pytest
import tiny

from ecg_jax import methods
from ecg_jax.errors import UserError
from ecg_jax.models.heads import MLP
from ecg_jax.models.siamese import Siamese, encoder

PARTS = ("encoder", "projector", "predictor")


@functools.cache
def begun():
    method = methods.build(tiny.config("simsiam", bottleneck=6))
    return *tiny.start(method), tiny.step(method)


def test_loss_is_equation_4():
    params, state, step = begun()
    (value, _), (gradient, _) = step(params, state, tiny.view())
    projector, predictor = MLP((12, 12, tiny.D), norm_last=True), MLP((6, tiny.D))
    network = Siamese(encoder(tiny.config("simsiam")), projector, predictor)
    x = tiny.two_views(tiny.view())
    out = tiny.outputs(network, {"params": params, **state}, x)
    p, z = tiny.unit(out.prediction), tiny.unit(out.projection)
    expected = -np.sum(p[:, 0] * z[:, 1] + p[:, 1] * z[:, 0], axis=-1).mean() / 2
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    assert all(tiny.largest(gradient[part]) > 0 for part in PARTS)


def test_no_gradient_reaches_the_network_but_through_the_predictor():
    """One that ignores its input leaves the encoder nothing to learn from."""
    params, state, step = begun()
    out = params["predictor"]["out"]
    deaf = {"kernel": 0 * out["kernel"], "bias": out["bias"] + 1}
    params = {**params, "predictor": {**params["predictor"], "out": deaf}}
    _, (gradient, _) = step(params, state, tiny.view())
    assert tiny.largest(gradient["predictor"]["out"]) > 0
    assert tiny.largest([gradient["encoder"], gradient["projector"]]) == 0


def test_projector_and_predictor_are_the_papers():
    """Section 3: three layers, each with BatchNorm; a bottleneck of two, BatchNorm in the first."""
    params, state, _ = begun()
    shapes = jax.tree.map(np.shape, params)
    kernels = {
        part: [layer["kernel"] for layer in shapes[part].values() if "kernel" in layer]
        for part in ("projector", "predictor")
    }
    assert sorted(kernels["projector"]) == [(12, tiny.D), (12, 12), (32, 12)]
    assert sorted(kernels["predictor"]) == [(6, tiny.D), (tiny.D, 6)]
    assert len(state["batch_stats"]["projector"]) == 3
    assert len(state["batch_stats"]["predictor"]) == 1


def test_bad_input():
    with pytest.raises(UserError, match=r"model.bottleneck=0: .* a quarter of model.dim, 2"):
        methods.build(tiny.config("simsiam", bottleneck=0))
