"""CPC: its loss against a float64 oracle written from the paper, its context and its heads."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from scipy.optimize import approx_fprime
from scipy.special import expit, logsumexp

from configs import cpc as recipe
from ecg_jax import methods
from ecg_jax.errors import UserError
from ecg_jax.methods import cpc
from ecg_jax.models.context import predict
from ecg_jax.runtime import parallel

B, T, RATE, HIDDEN = 8, 160, 100, 6
P, STRETCH = 5, 32  # stretches, and samples of each
STEPS, CONTEXT = 2, 3


def small(**model):
    """All of the map is the stretch, and all of the context's positions are predicted from, so
    that nothing is left to chance."""
    config = recipe.get_config("rate=100")
    config.seconds = T / RATE
    config.augment = ()
    config.batch_size = config.shards = B
    sizes = {
        "width": 4,
        "convolution": "plain",
        "hidden": HIDDEN,
        "stretch": STRETCH / RATE,
        "steps": STEPS,
        "context": CONTEXT,
        "times": CONTEXT,
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


def oracle(z, c, heads, times):
    """Equation 4 with f_k of equation 3, one prediction after the other: z [B, P, D], c [B, A, H]
    the contexts at `times`, heads [K, D, H] the matrices W_k."""
    losses = []
    for i, a, k in np.ndindex(len(z), len(times), len(heads)):
        predicted = heads[k] @ c[i, a]
        at = times[a] + k + 1
        negatives = [z[j, at] @ predicted for j in range(len(z)) if j != i]
        negatives += [z[i, p] @ predicted for p in range(z.shape[1]) if p != at]
        positive = z[i, at] @ predicted
        losses.append(logsumexp([positive, *negatives]) - positive)
    return np.mean(losses)


def gru(z, p):
    """The context after each position of z [P, D] (Chung et al. 2014): reset gate r, update u."""

    def gate(name, x, h):
        return x @ p[f"i{name}"]["kernel"] + p[f"i{name}"]["bias"] + h @ p[f"h{name}"]["kernel"]

    h, outputs = np.zeros(HIDDEN), []
    for x in z:
        r, u = expit(gate("r", x, h)), expit(gate("z", x, h))
        past = h @ p["hn"]["kernel"] + p["hn"]["bias"]
        n = np.tanh(x @ p["in"]["kernel"] + p["in"]["bias"] + r * past)
        h = (1 - u) * n + u * h
        outputs.append(h)
    return np.array(outputs)


def test_the_loss_of_the_whole_method(started, view):
    method, params, state = started
    value, (after, metrics) = jax.jit(method.loss)(params, state, view, jax.random.key(1))
    training = {"train": True, "mutable": ["batch_stats"]}
    z, statistics = encoded(params, state, view.ecg, **training)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    z = np.asarray(z, np.float64)
    c = np.stack([gru(z_i[:CONTEXT], p["context"]["gru"]) for z_i in z])
    heads = p["heads"].swapaxes(1, 2)
    np.testing.assert_allclose(value, oracle(z, c, heads, np.arange(CONTEXT)), rtol=1e-5)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, after["batch_stats"]["encoder"], statistics["batch_stats"])
    assert {"accuracy", "embedding_std", "positive_cosine"} <= set(metrics)


@pytest.mark.parametrize("devices", [1, 8])
def test_value_and_gradient(devices):
    rng = np.random.default_rng(0)
    D, times = 4, np.array([2, 0])
    shapes = (B, P + 1, D), (B, len(times), HIDDEN), (STEPS, D, HIDDEN)
    arrays = [rng.standard_normal(shape) for shape in shapes]

    def loss(z, c, heads):
        return cpc.objective(predict(heads.swapaxes(1, 2), c), z, jnp.asarray(times))[0]

    mesh = parallel.make_mesh(jax.devices()[:devices])
    layout = parallel.by_record(mesh), parallel.by_record(mesh), parallel.replicated(mesh)
    args = [parallel.put(x.astype(np.float32), s) for x, s in zip(arrays, layout, strict=True)]
    value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(*args)
    np.testing.assert_allclose(value, oracle(*arrays, times), rtol=1e-5)
    for i, gradient in enumerate(gradients):

        def of_one(flat, i=i):
            moved = list(arrays)
            moved[i] = flat.reshape(shapes[i])
            return oracle(*moved, times)

        numeric = approx_fprime(arrays[i].ravel(), of_one, 1e-6).reshape(shapes[i])
        np.testing.assert_allclose(gradient, numeric, rtol=1e-3, atol=2e-5)


def test_a_context_knows_nothing_of_later_positions():
    z = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 4)), jnp.float32)
    module, t = cpc.Recurrent(HIDDEN), 2
    variables = jax.jit(module.init)(jax.random.key(0), z, jnp.array([t]))
    gradient = jax.jit(jax.grad(lambda z: module.apply(variables, z, jnp.array([t])).sum()))(z)
    assert not gradient[:, t + 1 :].any()
    assert gradient[:, : t + 1].any(axis=-1).all()


def test_every_step_has_a_head_of_its_own():
    heads, c = jnp.asarray(np.random.default_rng(0).standard_normal((3, 2, 4))), jnp.ones((1, 2))
    moved = predict(heads.at[1].add(1.0), c) - predict(heads, c)
    assert not moved[:, [0, 2]].any()
    np.testing.assert_allclose(moved[:, 1], 2.0, rtol=1e-6)


def test_times_and_stretches_are_drawn_anew(started, view):
    _, params, state = started
    loss = jax.jit(methods.build(small(context=2, times=1)).loss)
    keys = jax.random.split(jax.random.key(1), 30)
    values = {round(float(loss(params, state, view, key)[0]), 4) for key in keys}
    assert len(values) == 2 * 2  # stretches of 4 in 5 positions, and their first or second one


def test_features_are_the_mean_of_the_map(started, view):
    method, params, state = started
    features, embedding, maps, *_ = jax.jit(method.encode)(params, state, view.ecg, view.lead_mask)
    expected = encoded(params, state, view.ecg, train=False).mean(axis=1)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(maps.mean(axis=1), expected, rtol=1e-4, atol=1e-6)
    assert embedding.shape == (B, HIDDEN)
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-5)


def test_records_too_short():
    config = small(context=4)
    with pytest.raises(
        UserError, match=r"1\.6 s have 5: set --config\.seconds .* to at least 1\.92"
    ):
        methods.build(config)
    config.seconds = 1.92
    methods.build(config)
    with pytest.raises(UserError, match=r"stretch=0\.31: 31 samples at 100 Hz, .* needs 32"):
        methods.build(small(stretch=0.31))


@pytest.mark.parametrize("model", [{"steps": 0}, {"times": 4}, {"times": 0}])
def test_nothing_to_predict_or_to_predict_from(model):
    with pytest.raises(UserError, match="1 <= times <= context, and steps >= 1"):
        methods.build(small(**model))


def test_no_units_and_no_second_view():
    with pytest.raises(UserError, match=r"model\.hidden=0: the units of CPC's GRU"):
        methods.build(small(hidden=0))
    config = small()
    config.augment_second = ({"name": "jitter"},)
    with pytest.raises(UserError, match=r"cpc augments all views alike"):
        methods.build(config)
