"""Chunks and recomputation change the memory of a step, not what it computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import etp
from ecg_jax.errors import UserError
from ecg_jax.losses.contrastive import symmetric_info_nce
from ecg_jax.methods import View, build
from ecg_jax.models.chunked import in_chunks
from ecg_jax.models.heads import normalize
from ecg_jax.runtime import parallel

B, T = 32, 256


def close(ours, theirs, tolerance=1e-5):
    for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance * max(1e-3, np.abs(b).max()))


def arrays():
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((B, T, 3)), normalize(jnp.asarray(rng.standard_normal((B, 8))))
    w = {"in": rng.standard_normal((3, 16)), "out": rng.standard_normal((16, 8))}
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (x, t, w))


def network(w, x):
    """A network without statistics across records."""
    h = jnp.tanh(x @ w["in"]).mean(axis=1)
    return normalize(h @ w["out"]), {"mean": h.mean(axis=0)}


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("chunks", [1, 2, 4])
def test_value_and_gradient_are_the_full_batch_s(chunks, devices):
    x, t, w = arrays()
    mesh = parallel.make_mesh(jax.devices()[:devices])

    def loss(w, x, chunks):
        e, statistics = in_chunks(lambda part: network(w, part), x, chunks, "cpu")
        return symmetric_info_nce(e, t, 0.07), statistics

    step = jax.jit(jax.value_and_grad(loss, has_aux=True), static_argnums=2)
    expected = step(w, x, 1)
    close(step(w, jax.device_put(x, parallel.by_record(mesh)), chunks), expected)


def test_negatives_come_from_the_full_batch():
    """Averaging the losses of the chunks, as plain accumulation does, is another loss."""
    x, t, w = arrays()
    e, _ = in_chunks(lambda part: network(w, part), x, 4, "cpu")
    whole = symmetric_info_nce(e, t, 0.07)
    parts = [symmetric_info_nce(e[i::4], t[i::4], 0.07) for i in range(4)]
    assert whole > np.mean(parts) + 0.5


def config(**fields):
    c = etp.get_config(None)
    c.batch_size, c.augment = B, ()
    c.model.update(width=8, dim=16)
    for name, value in fields.items():
        c.model[name] = value
    return c


def view():
    rng = np.random.default_rng(1)
    return View(
        ecg=jnp.asarray(rng.standard_normal((B, T, 12)), jnp.float32),
        lead_mask=jnp.ones((B, 12), bool),
        text=jnp.asarray(rng.standard_normal((B, 24)), jnp.float32),
        text_id=jnp.arange(B),
        row=jnp.arange(B),
        patient=jnp.arange(B),
    )


def compiled(c):
    """The compiled loss and gradient of ETP, and its arguments."""
    method = build(c)
    params, state = method.init(jax.random.key(0), view())
    grad = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
    arguments = params, state, view(), jax.random.key(1)
    return grad.lower(*arguments).compile(), arguments


def test_etp_in_chunks_is_etp_with_each_chunk_s_own_statistics():
    """The oracle keeps every activation: four batches through the encoder, one loss."""
    from ecg_jax.models.resnet1d import ResNet1D

    c = config()
    c.accumulate = 4
    grad, arguments = compiled(c)
    encoder = ResNet1D(width=8)

    def loss(params, state, v):
        outputs = [
            encoder.apply({"params": params["encoder"], **state}, v.ecg[i::4], True,
                          mutable=["batch_stats"])
            for i in range(4)
        ]  # fmt: skip
        features = jnp.stack([o[0] for o in outputs], axis=1).reshape(B, -1)

        def head(name, h):
            return normalize(h @ params[name]["out"]["kernel"] + params[name]["out"]["bias"])

        statistics = jax.tree.map(lambda *leaves: sum(leaves) / 4, *(o[1] for o in outputs))
        e, t = head("ecg_head", features), head("text_head", v.text)
        return symmetric_info_nce(e, t, c.model.temperature, v.text_id), statistics

    value, (statistics, _), gradient = unpack(grad(*arguments))
    expected = jax.jit(jax.value_and_grad(loss, has_aux=True))(*arguments[:3])
    close((value, statistics, gradient), unpack(expected), 2e-5)


def unpack(result):
    (value, aux), gradient = result
    return value, aux, gradient


def kept(c):
    """Bytes that the forward pass keeps for the backward pass."""
    method = build(c)
    params, state = method.init(jax.random.key(0), view())

    def backward(params):
        return jax.vjp(lambda p: method.loss(p, state, view(), jax.random.key(1))[0], params)[1]

    saved = jax.tree.leaves(jax.eval_shape(backward, params))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in saved)


@pytest.mark.parametrize("name", ["remat", "accumulate"])
def test_less_is_kept_for_the_backward_pass(name):
    c = config(remat=name == "remat")
    c.accumulate = 4 if name == "accumulate" else 1
    assert kept(c) < 0.5 * kept(config())


def test_recomputation_changes_no_figure():
    (plain, arguments), (saving, _) = compiled(config()), compiled(config(remat=True))
    close(saving(*arguments), plain(*arguments), 2e-5)


@pytest.mark.parametrize("chunks", [0, 5])
def test_chunks_that_do_not_divide_the_batch_are_refused(chunks):
    c = config()
    c.accumulate = chunks
    with pytest.raises(UserError, match=rf"32 does not divide into {chunks} chunks"):
        build(c)
