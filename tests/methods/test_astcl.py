"""ASTCL: its three losses, the views, the game between encoder and discriminator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.optimize import approx_fprime
from scipy.signal import savgol_filter

from configs import astcl as config_file
from ecg_jax.errors import UserError
from ecg_jax.methods import View, astcl, build
from ecg_jax.methods.shared.towers import Towers
from ecg_jax.models.heads import MLP
from ecg_jax.models.spatiotemporal import Spatiotemporal, reverse
from ecg_jax.runtime import parallel

B, S, P, T = 8, 3, 5, 128
PATIENT = np.array([0, 1, 0, 2, 3, 3, 3, 4], np.int32)


def unit(*shape):
    x = np.random.default_rng(sum(shape)).standard_normal(shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def discrimination(q, z):
    """|q - z|^2 from every view to the other views of the patient's records, pair by pair."""
    total = 0.0
    for i in range(B):
        others = [j for j in range(B) if PATIENT[j] == PATIENT[i]]
        for v in (0, 1):
            total += np.mean([np.sum((q[i, v] - z[j, 1 - v]) ** 2) for j in others])
    return total / (2 * B)


def prediction(forecast, parts):
    """|f - p|^2 from each segment but the last to the next one of the other view."""
    pairs = [
        np.sum((forecast[i, v, s] - parts[i, 1 - v, s + 1]) ** 2)
        for i in range(B)
        for v in (0, 1)
        for s in range(S - 1)
    ]
    return np.mean(pairs)


def game(logit):
    """-log of the probability of the right answer: sigmoid(logit) for the denoised view, 1."""
    share = 1 / (1 + np.exp(-logit))
    return -np.mean(np.log(np.stack([1 - share[:, 0], share[:, 1]])))


LOSSES = {
    "discrimination": (discrimination, (unit(B, 2, P), unit(B, 2, P)[::-1].copy())),
    "prediction": (prediction, (unit(B, 2, S - 1, P), unit(B, 2, S, P))),
    "game": (game, (3 * unit(B, 2),)),
}


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients(name, devices):
    oracle, arrays = LOSSES[name]
    sharding = parallel.by_record(parallel.make_mesh(jax.devices()[:devices]))
    inputs = [parallel.put(x.astype(np.float32), sharding) for x in arrays]
    more = (parallel.put(PATIENT, sharding),) if name == "discrimination" else ()
    places = tuple(range(len(inputs)))
    run = jax.jit(jax.value_and_grad(getattr(astcl, name), places))
    value, gradients = run(*inputs, *more)
    np.testing.assert_allclose(value, oracle(*arrays), rtol=1e-5)

    def of_first(flat):
        x = flat.reshape(arrays[0].shape)
        if name != "game":  # |q - z|^2 is 2 - 2 cos for unit vectors, and moved ones are not
            return (oracle(x, *arrays[1:]) - np.mean(np.sum(x**2, -1))) + 1
        return oracle(x)

    numeric = approx_fprime(arrays[0].ravel(), of_first, 1e-7).reshape(arrays[0].shape)
    np.testing.assert_allclose(gradients[0], numeric, atol=2e-6)
    if len(arrays) == 2:
        np.testing.assert_array_equal(gradients[1], 0)  # stop-gradient


class Encoder(nn.Module):
    """A map as the real one's, of windows that do not overlap; it compiles in no time."""

    @nn.compact
    def __call__(self, x, train, pool):
        assert not pool
        return nn.tanh(nn.Dense(6)(x.reshape(len(x), -1, 32 * 12)))


def network(adversarial):
    heads = MLP((8, P), norm_last=True), MLP((4, P)), MLP((4, P)), MLP((4, 1), norm=False)
    return Spatiotemporal(Encoder(), *heads, S, adversarial)


def test_reversal_leaves_the_value_and_turns_the_gradient():
    x = np.random.default_rng(0).normal(size=7).astype(np.float32)
    value, pull = jax.vjp(lambda x: reverse(x, 0.3), x)
    np.testing.assert_array_equal(value, x)
    np.testing.assert_allclose(pull(x)[0], -0.3 * x, rtol=1e-6)


def test_the_encoder_climbs_where_the_discriminator_descends():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2 * B, T, 12)), jnp.float32)
    variables = network(1.0).init(jax.random.key(0), x, train=False)

    def gradient(adversarial):
        def of(params):
            out, _ = network(adversarial).apply(
                {**variables, "params": params}, x, train=True, mutable=["batch_stats"]
            )
            return astcl.game(out.logit.reshape(B, 2))

        return jax.jit(jax.grad(of))(variables["params"])

    played, plain = gradient(0.5), gradient(-1.0)  # a strength of -1 turns nothing round
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7),
        {"discriminator": played["discriminator"], "encoder": played["encoder"]},
        {
            "discriminator": plain["discriminator"],
            "encoder": jax.tree.map(lambda g: -0.5 * g, plain["encoder"]),
        },
    )
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(plain["encoder"])) > 1e-3


def test_segments_are_stretches_of_the_record():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 7 * 32, 12)), jnp.float32)
    variables = network(1.0).init(jax.random.key(0), x, train=False)
    a, b = (
        network(1.0).apply(variables, v, train=False) for v in (x, x.at[:, 4 * 32 : 6 * 32].set(0))
    )
    assert a.parts.shape == (4, S, P)
    assert a.forecast.shape == (4, S - 1, P)
    moved = [np.abs(a.parts[:, s] - b.parts[:, s]).max() for s in range(S)]
    assert moved[:2] == [0, 0]
    assert moved[2] > 1e-2
    np.testing.assert_array_equal(a.forecast, b.forecast)  # of segments 1 and 2, from 0 and 1
    maps = Encoder().apply({"params": variables["params"]["encoder"]}, x, train=False, pool=False)
    np.testing.assert_allclose(a.features, np.mean(maps, axis=1), rtol=1e-5, atol=1e-6)


@pytest.fixture
def config():
    c = config_file.get_config(None)
    c.batch_size = c.shards = B
    c.rate, c.seconds = 100, T / 100
    c.model.update(width=4, hidden=8, dim=8, segments=2)
    return c


@pytest.fixture
def view():
    ecg = np.random.default_rng(0).standard_normal((B, T, 12)).astype(np.float32)
    mask = np.ones((B, 12), bool)
    mask[:, 3], ecg[:, :, 3] = False, 0
    row = np.arange(B, dtype=np.int32)
    arrays = (ecg, mask, np.zeros((B, 0), np.float32), row, row, PATIENT)
    return View(*map(jnp.asarray, arrays))


def test_the_views_are_the_record_with_more_noise_and_with_less(config, view, monkeypatch):
    config.augment = ({"name": "jitter", "sd": 0.5},)
    config.augment_second = ({"name": "scale", "low": 2.0, "high": 2.0},)
    seen = []

    def train(self, params, state, x):
        seen.append(x)
        raise InterruptedError

    monkeypatch.setattr(Towers, "train", train)
    with pytest.raises(InterruptedError):
        build(config).loss({}, {}, view, jax.random.key(0))
    noise = seen[0][:, 0] - view.ecg
    assert 0.1 < noise.std() < 0.5
    assert abs(np.corrcoef(noise.ravel(), np.ravel(view.ecg))[0, 1]) < 0.05
    np.testing.assert_allclose(seen[0][:, 1], 2 * astcl.denoise(view.ecg, 100), rtol=1e-5)
    np.testing.assert_array_equal(seen[0][:, :, :, 3], 0)


@pytest.mark.parametrize(("rate", "points"), [(100, 5), (500, 25)])
def test_denoise(rate, points):
    """SciPy's filter less a moving average, and what they do to waves and noise."""
    t = np.arange(4 * rate) / rate
    rng = np.random.default_rng(0)
    beats = np.exp(-(((t % 0.8 - 0.4) / 0.03) ** 2))
    drift, noise = np.sin(2 * np.pi * 0.1 * t), 0.1 * rng.standard_normal(len(t))
    ecg = np.tile((beats + drift + noise)[None, :, None], (2, 1, 12))
    found = np.asarray(jax.jit(astcl.denoise, static_argnums=1)(ecg.astype(np.float32), rate))
    smooth = savgol_filter(ecg, points, 2, axis=1, mode="nearest")
    mean = [ecg[:, max(i - rate // 2, 0) : i + rate // 2 + 1].mean(axis=1) for i in range(len(t))]
    np.testing.assert_allclose(found, smooth - np.stack(mean, axis=1), atol=1e-4)
    alone = [
        np.asarray(astcl.denoise(np.tile(x[None, :, None], (1, 1, 12)), rate))[0, rate:-rate, 0]
        for x in (beats, drift, noise)
    ]
    assert np.ptp(alone[0]) > 0.9 * np.ptp(beats)
    assert np.ptp(alone[1]) < 0.1 * np.ptp(drift)
    assert alone[2].std() < 0.75 * noise.std()


def test_denoising_keeps_records_on_their_device():
    ecg = jax.device_put(
        np.ones((B, 400, 12), np.float32), parallel.by_record(parallel.make_mesh())
    )
    program = jax.jit(astcl.denoise, static_argnums=1).lower(ecg, 100).compile().as_text()
    assert "all-gather" not in program


def test_a_step_is_the_sum_of_the_three(config, view, monkeypatch):
    """The weight of the prediction in time counts, and so does who the patient is."""
    monkeypatch.setattr(astcl, "encoder", lambda config: Encoder())
    params, state = build(config).init(jax.random.key(0), view)

    def value(patient=view.patient, **weights):
        config.model.update(**weights)
        run = build(config).loss
        found, (new, metrics) = jax.jit(run)(
            params, state, view._replace(patient=patient), jax.random.key(1)
        )
        assert set(new) == {"batch_stats"}
        assert {"positive_cosine", "embedding_std", "view_accuracy"} <= set(metrics)
        terms = metrics["across_patient"], config.model.temporal * metrics["across_time"]
        np.testing.assert_allclose(found, sum(terms) + metrics["game"], rtol=1e-5)
        assert metrics["game"] > np.log(2) / 2
        return float(found)

    none, one, two = (value(temporal=w) for w in (0.0, 1.0, 2.0))
    np.testing.assert_allclose(two - one, one - none, rtol=1e-4)
    assert one - none > 0.1
    assert abs(value(patient=view.row, temporal=0.0) - none) > 1e-3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"segments": 1}, "segments=1: choose 2 to 4; .* 4 positions in 1.28 s at 100 Hz"),
        ({"segments": 5}, "segments=5: choose 2 to 4"),
        ({"temporal": -1.0}, "temporal=-1.0: must not be negative"),
        ({"adversarial": -0.1}, "adversarial=-0.1: must not be negative"),
    ],
)
def test_bad_input(config, fields, message):
    config.model.update(**fields)
    with pytest.raises(UserError, match=message):
        build(config)
