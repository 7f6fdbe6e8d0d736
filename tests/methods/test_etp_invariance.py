"""ETP's loss between two views of an ECG, equations 6-8: a weight in `configs/etp.py`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy.optimize import approx_fprime

from configs import etp as config_file
from ecg_jax.data import augment
from ecg_jax.errors import UserError
from ecg_jax.losses.contrastive import info_nce
from ecg_jax.methods import View, build, etp
from ecg_jax.models.heads import normalize
from ecg_jax.run.config import from_json, to_json
from ecg_jax.runtime import parallel

B, F, T = 16, 6, 128


def features():
    return np.random.default_rng(0).gamma(1.0, size=(2, B, F))  # of the rectified kind


def oracle(e, second):
    """Equation 6 record by record, with r of equation 8 a cosine and sigma_2 = 0.07."""
    total = 0.0
    for i in range(B):
        r = [e[i] @ s / np.linalg.norm(e[i]) / np.linalg.norm(s) for s in second]
        total -= np.log(np.exp(r[i] / 0.07) / np.exp(np.array(r) / 0.07).sum())
    return total / B


@pytest.mark.parametrize("devices", [1, 8])
def test_value_and_gradient(devices):
    both = features()
    sharding = parallel.by_record(parallel.make_mesh(jax.devices()[:devices]))
    inputs = [parallel.put(x.astype(np.float32), sharding) for x in both]

    def invariance(e, second):
        return info_nce(normalize(e), normalize(second), etp.SIGMA_2)

    value, gradients = jax.jit(jax.value_and_grad(invariance, (0, 1)))(*inputs)
    np.testing.assert_allclose(value, oracle(*both), rtol=1e-5)
    assert abs(oracle(*both) - oracle(*both[::-1])) > 1e-3  # the direction matters

    def of(flat):
        return oracle(*flat.reshape(both.shape))

    steps = [approx_fprime(both.ravel(), of, s * 1e-6) for s in (1, -1)]
    numeric = np.mean(steps, axis=0).reshape(both.shape)
    np.testing.assert_allclose(np.stack(gradients), numeric, atol=2e-5 * np.abs(numeric).max())


class Encoder(nn.Module):
    """With BatchNorm, and compiled in no time."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(F)(x[:, ::16].reshape(len(x), -1))
        return nn.softplus(nn.BatchNorm(use_running_average=not train)(x))


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setattr(etp.siamese, "encoder", lambda config: Encoder())
    c = config_file.get_config("demo")
    c.batch_size = c.shards = B
    c.model.dim = 4
    c.model.same_report, c.model.soft_targets = False, 0.0
    c.augment = ({"name": "jitter", "sd": 0.5},)
    return c


@pytest.fixture
def view():
    rng = np.random.default_rng(0)
    ecg, text = rng.standard_normal((B, T, 12)), rng.standard_normal((B, 5))
    row = np.arange(B, dtype=np.int32)
    arrays = (ecg.astype(np.float32), np.ones((B, 12), bool), text.astype(np.float32))
    return View(*map(jnp.asarray, (*arrays, row, row, row)))


def step(config, view, devices=1):
    """Loss, statistics after it and metrics of a first step."""
    mesh = parallel.make_mesh(jax.devices()[:devices])
    view = jax.device_put(view, parallel.by_record(mesh))
    method = build(config)
    init = jax.jit(method.init, out_shardings=parallel.replicated(mesh))
    params, state = init(jax.random.key(0), view)
    with jax.set_mesh(mesh):
        value, (state, metrics) = jax.jit(method.loss)(params, state, view, jax.random.key(1))
    return params, float(value), state, metrics


def test_it_adds_to_the_loss_what_the_encoder_makes_of_two_views(config, view):
    """Both views pass BatchNorm together; the first one is the one that meets the report."""
    config.augment = ({"name": "scale", "low": 1.0, "high": 1.0},)
    config.augment_second = ({"name": "scale", "low": 3.0, "high": 3.0},)
    config.model.invariance = 0.5
    params, value, state, metrics = step(config, view)
    start = build(config).init(jax.random.key(0), view)[1]
    x = jnp.concatenate([view.ecg, 3 * view.ecg])
    both, updated = Encoder().apply(
        {"params": params["encoder"], **start}, x, train=True, mutable=["batch_stats"]
    )
    expected = oracle(*np.asarray(both, np.float64).reshape(2, B, F))
    np.testing.assert_allclose(metrics["invariance"], expected, rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state, updated
    )
    config.model.invariance = 2.0
    np.testing.assert_allclose(step(config, view)[1] - value, 1.5 * expected, rtol=1e-4)
    config.model.invariance, config.augment_second = 0.0, ()
    assert "invariance" not in step(config, view)[3]


def test_the_second_view_is_drawn_anew_and_the_first_as_without(config, view, monkeypatch):
    seen = []

    def over_views(encode, x, chunks, platform):
        seen.append(x)
        raise InterruptedError

    monkeypatch.setattr(etp, "over_views", over_views)
    for weight in (0.0, 1.0):
        config.model.invariance = weight
        with pytest.raises(InterruptedError):
            build(config).loss({"encoder": {}}, {}, view, jax.random.key(1))
    first, _ = augment.compose(config.augment, 100)(jax.random.key(1), view.ecg, view.lead_mask)
    assert [x.shape[1] for x in seen] == [1, 2]
    for x in seen:
        np.testing.assert_array_equal(x[:, 0], first)
    noise = [np.ravel(seen[1][:, v] - view.ecg) for v in (0, 1)]
    assert noise[1].std() > 0.1
    assert abs(np.corrcoef(*noise)[0, 1]) < 0.05


@pytest.mark.parametrize("batch_norm", ["global", "device"])
@pytest.mark.parametrize("chunks", [1, 2])
def test_in_chunks_and_with_statistics_of_each_device(config, view, chunks, batch_norm):
    """A step on one device is the whole truth where BatchNorm sees the same records."""
    config.model.invariance = 1.0
    config.accumulate = chunks
    config.parallel.batch_norm = batch_norm
    _, value, state, _ = step(config, view, devices=8)
    _, alone, lone, _ = step(config, view)
    assert np.isfinite(value)
    if batch_norm == "global":
        np.testing.assert_allclose(value, alone, rtol=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state, lone
        )
    else:
        assert abs(value - alone) > 1e-4


def test_bad_input_and_older_runs(config):
    config.model.invariance = 1.0
    config.augment = config.augment_second = ()
    with pytest.raises(UserError, match=r"two augmented views, and config\.augment is empty"):
        build(config)
    config.augment = ({"name": "jitter"},)
    config.parallel.loss = "ring"
    with pytest.raises(UserError, match=r"plain form only: not with --config\.parallel\.loss=ring"):
        build(config)
    config.parallel.loss, config.model.invariance = "plain", 0.0
    config.augment_second = config.augment
    with pytest.raises(UserError, match=r"augment_second is of model\.invariance, which is 0"):
        build(config)
    older = to_json(config)
    del older["model"]["invariance"]
    assert from_json(older).model.invariance == 0
