"""Every form of a convolution against the sum that defines it, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from configs import etp
from ecg_jax.models import conv1d
from ecg_jax.models.conv1d import Conv
from ecg_jax.run.config import from_json, to_json


def oracle(x, w, dy, stride=1):
    """y, dx and dw of y[t] = sum_k x[stride t + k - K // 2] w[k], term by term."""
    x, w, dy = (np.asarray(a, np.float64) for a in (x, w, dy))
    K, T = len(w), x.shape[1]
    padded = np.pad(x, ((0, 0), (K // 2, K), (0, 0)))
    y, dpadded, dw = np.zeros(dy.shape), np.zeros(padded.shape), np.zeros(w.shape)
    for t in range(dy.shape[1]):
        for k in range(K):
            i = stride * t + k
            y[:, t] += padded[:, i] @ w[k]
            dpadded[:, i] += dy[:, t] @ w[k].T
            dw[k] += padded[:, i].T @ dy[:, t]
    return y, dpadded[:, K // 2 : K // 2 + T], dw


def arrays(T, C, D, K, stride=1):
    rng = np.random.default_rng(T)
    shapes = (2, T, C), (K, C, D), (2, -(-T // stride), D)
    return (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in shapes)


def close(ours, truth, tolerance):
    for a, b in zip(ours, truth, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * np.abs(b).max(), rtol=0)


@pytest.mark.parametrize("T", [1, 2, 3, 4, 5, 31, 32, 33, 34])
def test_winograd_and_its_gradients(T):
    x, w, dy = arrays(T, 24, 16, 3)
    y, vjp = jax.vjp(conv1d.winograd, x, w)
    close((y, *vjp(dy)), oracle(x, w, dy), 3e-6)


def test_winograd_at_the_widest_stage_is_within_its_stated_error():
    x, w, dy = arrays(40, 512, 512, 3)
    y, vjp = jax.vjp(conv1d.winograd, x, w)
    close((y, *vjp(dy)), oracle(x, w, dy), 5e-6)


def test_winograd_matrices_are_a_convolution_in_exact_arithmetic():
    for k in range(3):
        for i in range(6):
            product = conv1d.A @ (conv1d.G[:, k] * conv1d.B[:, i])
            expected = [1.0 if i == t + k else 0.0 for t in range(4)]
            np.testing.assert_allclose(product, expected, atol=1e-15)


@pytest.mark.parametrize("form", conv1d.FORMS)
@pytest.mark.parametrize(("K", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
@pytest.mark.parametrize("T", [8, 9, 31])
def test_every_form_is_the_definition(K, stride, T, form):
    x, w, dy = arrays(T, 6, 10, K, stride)
    conv = Conv(10, K, stride, form=form)
    y, vjp = jax.vjp(lambda x, w: conv.apply({"params": {"kernel": w}}, x), x, w)
    close((y, *vjp(dy)), oracle(x, w, dy, stride), 3e-6)


def test_conv_has_the_parameter_of_flax_conv():
    x = jnp.ones((1, 16, 12))
    init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    theirs = nn.Conv(8, (3,), use_bias=False, kernel_init=init).init(jax.random.key(0), x)
    ours = Conv(8, 3).init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_bfloat16_keeps_the_plain_form():
    x, w, _ = arrays(32, 16, 16, 3)
    y = Conv(16, 3, dtype=jnp.bfloat16).apply({"params": {"kernel": w}}, x)
    expected = conv1d.plain(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("form", ["planar", "shifted", "folded"])
def test_a_saved_run_with_a_form_that_is_gone_is_read(form):
    saved = to_json(etp.get_config())
    saved["model"]["convolution"] = form
    assert from_json(saved).model.convolution == "auto"


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_a_strided_shortcut_is_a_convolution_on_accelerators(platform):
    """As a product of a slice XLA's GPU compiler ends the process (jax 0.10.2 and 0.11.2)."""
    x, w, dy = arrays(8, 6, 10, 1, 2)
    conv = Conv(10, 1, 2, platform=platform)
    run = jax.make_jaxpr(lambda x, w: conv.apply({"params": {"kernel": w}}, x))
    assert "conv_general_dilated" in str(run(x, w)) and "dot_general" not in str(run(x, w))
    y, vjp = jax.vjp(lambda x, w: conv.apply({"params": {"kernel": w}}, x), x, w)
    close((y, *vjp(dy)), oracle(x, w, dy, 2), 3e-6)
