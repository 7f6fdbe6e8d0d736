"""wav2vec 2.0: parameter counts, each trap of the published layout, both forms of its positional
convolution, and what it draws in training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import wav2vec2_oracle as oracle

from ecg_jax.errors import UserError
from ecg_jax.models import ecg_fm, wav2vec2
from ecg_jax.models.masked import Masked
from ecg_jax.models.wav2vec2 import Dropout, Positions, Size, Wav2Vec2

TINY, TOKEN, T = Size(2, 32, 2, 48), 16, 160


def shapes(network, T):
    x = jax.ShapeDtypeStruct((1, T, 12), jnp.float32)
    return jax.eval_shape(lambda k, x: network.init(k, x, False), jax.random.key(0), x)["params"]


def count(tree):
    return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("size", "whole"), [("base", 90_883_072), ("large", 311_940_352)], ids=["base", "large"]
)
def test_parameters_to_the_unit(size, whole):
    params = shapes(Masked(Wav2Vec2(wav2vec2.SIZES[size]), 2500, 55), 2500)
    assert count(params) == whole
    if size == "base":
        assert count(params["encoder"]) + count(params["token"]) == 90_374_016
        assert count(params["encoder"]["context"]["positions"]) == 4_719_488
        layer = Wav2Vec2(wav2vec2.SIZES[size], extractor="layer")
        assert count(shapes(layer, 2500)) + 768 + 509_056 == 90_884_608


def test_tokens_of_a_window():
    """Of 500 samples at 100 Hz with both strides, and with the four of 500 Hz."""
    for strides, samples, P in (((2,) * 4, 2500, 156), ((2,) * 4, 1285, 80), ((2, 2), 500, 125)):
        network, key = Wav2Vec2(TINY, strides, TOKEN), jax.random.key(0)
        run = functools.partial(network.init_with_output, train=False, pool=False)
        tokens, _ = jax.eval_shape(run, key, jnp.zeros((1, samples, 12)))
        assert tokens.shape == (1, P, 32)


@pytest.fixture(scope="module")
def tensors():
    """Random numbers under the published names."""
    rng, made = np.random.default_rng(0), {}
    for name, (_, shape, _) in {
        **ecg_fm.encoder(TINY, TOKEN, 4),
        **ecg_fm.pretraining(TINY, TOKEN),
    }.items():
        around = 1.0 if name.endswith("norm.weight") or name.endswith("0.2.weight") else 0.0
        made[name] = (around + 0.3 * rng.standard_normal(shape)).astype(np.float32)
    return made


@pytest.fixture(scope="module")
def ecg():
    return np.random.default_rng(1).standard_normal((T, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def ours(tensors, ecg):
    params = ecg_fm.parameters(tensors, TINY, TOKEN)["encoder"]
    network = Wav2Vec2(TINY, token=TOKEN)
    noise = {"noise": {"noise": jnp.zeros(2, jnp.uint32)}}
    run = jax.jit(
        lambda x: network.apply({"params": params, "batch_stats": noise}, x, False, False)
    )
    return np.asarray(run(ecg[None]))[0]


def test_equals_the_oracle(tensors, ecg, ours):
    assert np.abs(ours - oracle.encode(tensors, ecg, 2, 2)).max() < 1e-4


@pytest.mark.parametrize("trap", oracle.TRAPS)
def test_falls_into_no_trap(tensors, ecg, ours, trap):
    least = 2e-4 if trap == "tanh" else 1e-2
    assert np.abs(ours - oracle.encode(tensors, ecg, 2, 2, trap)).max() > least


def test_both_names_of_the_weight_norm_and_no_others(tensors):
    renamed = dict(tensors)
    for i, name in enumerate(("weight_g", "weight_v")):
        at = "conv_pos.pos_conv.0."
        renamed[f"{at}parametrizations.weight.original{i}"] = renamed.pop(at + name)
    one, two = (ecg_fm.parameters(t, TINY, TOKEN) for t in (tensors, renamed))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    with pytest.raises(UserError, match=r"it lacks mask_emb \(1 are missing, 0 are unknown"):
        ecg_fm.parameters({k: v for k, v in tensors.items() if k != "mask_emb"}, TINY, TOKEN)
    with pytest.raises(UserError, match=r"it has more \(0 are missing, 1 are unknown"):
        ecg_fm.parameters({**tensors, "more": np.zeros(1)}, TINY, TOKEN)
    with pytest.raises(UserError, match=r"mask_emb has the shape \(3,\), and this model has \(32,"):
        ecg_fm.parameters({**tensors, "mask_emb": np.zeros(3)}, TINY, TOKEN)


def test_tensors_of_the_published_models():
    base = wav2vec2.SIZES["base"]
    encoder = ecg_fm.encoder(base, 256, 4)
    assert len(encoder) + len(ecg_fm.pretraining(base, 256)) == 215
    assert len(encoder) + 2 == 209
    sizes = [np.prod(shape) for _, shape, _ in encoder.values()]
    assert sum(sizes) + 768 * 17 + 17 == 90_386_321


def test_both_forms_of_the_positional_convolution_agree():
    x = jax.random.normal(jax.random.key(0), (3, 37, 32))
    forms = [Positions(jnp.float32, form) for form in ("conv", "product")]
    params = forms[0].init(jax.random.key(1), x)

    def loss(params, x, form):
        return jnp.sum(jnp.sin(form.apply(params, x)))

    run = jax.jit(jax.value_and_grad(loss, (0, 1)), static_argnums=2)
    one, two = (run(params, x, form) for form in forms)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), one, two)


def test_draws_are_new_in_every_training_pass_and_none_else():
    network = Wav2Vec2(TINY, token=TOKEN, rates=Dropout(0.2, 0.2, 0.2))
    x = jax.random.normal(jax.random.key(0), (2, T, 12))
    variables = network.init(jax.random.key(1), x, False)
    run = jax.jit(lambda v: network.apply(v, x, True, mutable=["batch_stats"]))
    first, updated = run(variables)
    second, again = run({**variables, **updated})
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(run(variables)[0], first)
    seed, passes = again["batch_stats"]["noise"]["noise"]
    assert passes == 2 and seed == variables["batch_stats"]["noise"]["noise"][0]
    still = jax.jit(lambda v: network.apply(v, x, False))
    np.testing.assert_array_equal(still(variables), still({**variables, **updated}))


def test_gradient_into_the_convolutions_is_scaled():
    x = jax.random.normal(jax.random.key(0), (2, T, 12))
    whole, tenth = (Wav2Vec2(TINY, token=TOKEN, scale=scale) for scale in (1.0, 0.1))
    variables = whole.init(jax.random.key(1), x, False)
    noise = {"batch_stats": variables["batch_stats"]}

    def loss(params, network):
        return jnp.sum(network.apply({"params": params, **noise}, x, False)[:, 0])

    run = jax.jit(jax.grad(loss), static_argnums=1)
    one, other = (run(variables["params"], network) for network in (whole, tenth))
    for name in ("tokenizer", "project"):
        factor = 0.1 if name == "tokenizer" else 1.0
        jax.tree.map(
            lambda a, b, f=factor: np.testing.assert_allclose(b, f * a, rtol=1e-3, atol=1e-6),
            one[name],
            other[name],
        )
