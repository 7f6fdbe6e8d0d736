"""TS-TCC: its losses against float64 oracles written from the paper, and its context."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from scipy.optimize import approx_fprime
from scipy.special import logsumexp

from configs import tstcc as recipe
from ecg_jax import methods
from ecg_jax.errors import UserError
from ecg_jax.methods import tstcc
from ecg_jax.runtime import parallel

B, T, RATE, STRETCH = 8, 128, 100, 32  # 4 stretches, of which the last 3 are predicted


def small(**model):
    """A weak view that is the record, a strong one that is half of it, and one time to draw."""
    config = recipe.get_config("rate=100")
    config.seconds = T / RATE
    config.augment = ()
    config.augment_second = ({"name": "scale", "low": 0.5, "high": 0.5},)
    config.batch_size = config.shards = B
    sizes = {
        "width": 4,
        "convolution": "plain",
        "hidden": 8,
        "layers": 1,
        "heads": 2,
        "mlp": 8,
        "dim": 6,
        "stretch": STRETCH / RATE,
        "ahead": 0.75,
    }
    config.model.update(**sizes | model)
    return config


@pytest.fixture(scope="module")
def view():
    return tiny.view(records=B, samples=T)


@pytest.fixture(scope="module")
def started(view):
    method = methods.build(small())
    return method, *jax.jit(method.init)(jax.random.key(0), view)


def encoded(params, state, x, **options):
    return tiny.encoded(small(), params, state, x, STRETCH, **options)


def temporal(z, c, heads, t):
    """L_TC^s + L_TC^w, equations 1 and 2: z [B, 2, P, D], c [B, 2, H], W_k heads [K, D, H]."""
    losses = np.zeros(2)
    for v, i, k in np.ndindex(2, len(z), len(heads)):
        scores = tiny.unit(z[:, 1 - v, t + 1 + k]) @ heads[k] @ c[i, v]
        losses[v] += logsumexp(scores) - scores[i]
    return losses.sum() / (len(z) * len(heads))


def contextual(a, b, tau):
    """Equation 6, over the 2 N contexts of the batch."""
    x = np.concatenate([tiny.unit(a), tiny.unit(b)])
    logits = x @ x.T / tau
    np.fill_diagonal(logits, -np.inf)
    partner = np.roll(np.arange(len(x)), len(a))
    return np.mean(logsumexp(logits, axis=1) - logits[np.arange(len(x)), partner])


@pytest.mark.parametrize("devices", [1, 8])
def test_value_and_gradient(devices):
    rng = np.random.default_rng(0)
    P, D, H, K, t = 5, 4, 3, 2, 1
    shapes = (B, 2, P, D), (B, 2, H), (K, D, H)
    arrays = [rng.standard_normal(shape) for shape in shapes]

    def loss(z, c, heads):
        predicted = tstcc.predict(heads.swapaxes(1, 2), c)
        return tstcc.across_views(predicted, z, jnp.int32(t))[0]

    mesh = parallel.make_mesh(jax.devices()[:devices])
    layout = parallel.by_record(mesh), parallel.by_record(mesh), parallel.replicated(mesh)
    args = [parallel.put(x.astype(np.float32), s) for x, s in zip(arrays, layout, strict=True)]
    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*args)
    np.testing.assert_allclose(value, temporal(*arrays, t), rtol=1e-5)
    for i, gradient in enumerate(gradients):

        def of_one(flat, i=i):
            moved = list(arrays)
            moved[i] = flat.reshape(shapes[i])
            return temporal(*moved, t)

        numeric = approx_fprime(arrays[i].ravel(), of_one, 1e-6).reshape(shapes[i])
        np.testing.assert_allclose(gradient, numeric, rtol=1e-3, atol=2e-5)


def test_the_loss_of_the_whole_method(started, view):
    method, params, state = started
    value, (after, metrics) = jax.jit(method.loss)(params, state, view, jax.random.key(1))
    views = jnp.stack([view.ecg, view.ecg / 2], axis=1).reshape(2 * B, T, 12)
    training = {"train": True, "mutable": ["batch_stats"]}
    z, statistics = encoded(params, state, views, **training)
    summary = tstcc.Summary(8, 1, 2, 8)
    c = jax.jit(summary.apply)({"params": params["context"]}, z[:, :1], jnp.array([0]))
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    z, c = (np.asarray(x, np.float64).reshape(B, 2, *x.shape[1:]) for x in (z, c[:, 0]))
    first, last = p["projector"]["Dense_0"], p["projector"]["out"]
    projected = np.maximum(c @ first["kernel"] + first["bias"], 0) @ last["kernel"] + last["bias"]
    parts = {
        "temporal": temporal(z, c, p["heads"].swapaxes(1, 2), 0),
        "contextual": contextual(projected[:, 0], projected[:, 1], 0.2),
    }
    for name, expected in parts.items():
        np.testing.assert_allclose(metrics[name], expected, rtol=1e-4)
    np.testing.assert_allclose(value, parts["temporal"] + 0.7 * parts["contextual"], rtol=1e-4)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, after["batch_stats"]["encoder"], statistics["batch_stats"])


def test_a_context_knows_nothing_of_later_positions():
    z = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 4)), jnp.float32)
    summary, times = tstcc.Summary(8, 2, 2, 8), jnp.array([0, 2])
    variables = jax.jit(summary.init)(jax.random.key(0), z, times)
    apply = jax.jit(lambda z: summary.apply(variables, z, times))
    gradients = jax.jit(jax.jacrev(lambda z: apply(z).sum(axis=(0, 2))))(z)
    for gradient, t in zip(gradients, [0, 2], strict=True):
        assert not gradient[:, t + 1 :].any()
        assert gradient[:, : t + 1].any(axis=-1).all()
    # The training's cut at the last time that may be drawn changes nothing.
    np.testing.assert_allclose(apply(z[:, :3]), apply(z), rtol=1e-5, atol=1e-6)


def test_times_are_drawn_anew(started, view):
    _, params, state = started
    loss = jax.jit(methods.build(small(ahead=0.5)).loss)
    params = {**params, "heads": params["heads"][:2]}
    keys = jax.random.split(jax.random.key(1), 12)
    values = {round(float(loss(params, state, view, key)[0]), 4) for key in keys}
    assert len(values) == 2  # of 4 stretches, t is the first or the second


def test_each_part_teaches_encoder_and_context(started, view):
    method, params, state = started

    def part(params, weights):
        _, (_, metrics) = method.loss(params, state, view, jax.random.key(1))
        return weights[0] * metrics["temporal"] + weights[1] * metrics["contextual"]

    gradient = jax.jit(jax.grad(part))
    for temporal, contextual in ((1.0, 0.0), (0.0, 1.0)):
        g = gradient(params, jnp.array([temporal, contextual]))
        assert g["encoder"]["conv_stem"]["kernel"].any()
        assert g["context"]["token"].any()
        assert g["heads"].any() == bool(temporal)
        assert g["projector"]["out"]["kernel"].any() == bool(contextual)


def test_features_are_the_mean_of_the_map(started, view):
    method, params, state = started
    features, embedding, maps, *_ = jax.jit(method.encode)(params, state, view.ecg, view.lead_mask)
    expected = encoded(params, state, view.ecg, train=False).mean(axis=1)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(maps.mean(axis=1), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-5)


def test_no_strong_view():
    config = small()
    config.augment_second = ()
    with pytest.raises(UserError, match=r"set config\.augment_second"):
        methods.build(config)


@pytest.mark.parametrize("ahead", [0.2, 0.0, 1.0])
def test_nothing_to_predict_or_to_predict_from(ahead):
    with pytest.raises(
        UserError, match=r"of a record's 4 stretches of 0\.32 s.*set --config\.seconds"
    ):
        methods.build(small(ahead=ahead))


def test_heads_that_do_not_divide():
    with pytest.raises(
        UserError, match=r"heads=3, .* hidden=8: all must be above zero, and heads divide"
    ):
        methods.build(small(heads=3))


@pytest.mark.parametrize("weight", ["temporal", "contextual"])
def test_negative_weights(weight):
    with pytest.raises(UserError, match=rf"model\.{weight}=-1\.0: must not be negative"):
        methods.build(small(**{weight: -1.0}))
