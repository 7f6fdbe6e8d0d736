import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecg_jax.models import conv1d, resnet1d
from ecg_jax.models.heads import MLP, normalize
from ecg_jax.models.resnet1d import ResNet1D


def parameters(depth):
    x = jax.ShapeDtypeStruct((1, 64, 12), jnp.float32)
    tree = jax.eval_shape(lambda x: ResNet1D(depth).init(jax.random.key(0), x, train=False), x)
    return sum(int(np.prod(p.shape)) for p in jax.tree.leaves(tree["params"]))


def resnet_parameters(depth):
    """Counted by hand from He et al., table 1, with kernels of one dimension and 12 inputs."""
    blocks = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}[depth]
    count, inputs = 7 * 12 * 64 + 2 * 64, 64
    for stage, n in enumerate(blocks):
        width = 64 * 2**stage
        outputs = 4 * width if depth == 50 else width
        for i in range(n):
            if depth == 50:
                count += inputs * width + 3 * width * width + width * outputs
                count += 2 * (2 * width + outputs)
            else:
                count += 3 * inputs * width + 3 * width * width + 4 * width
            if i == 0 and (stage or depth == 50):
                count += inputs * outputs + 2 * outputs
            inputs = outputs
    return count


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_parameter_count(depth):
    assert parameters(depth) == resnet_parameters(depth)


def test_shapes_and_types():
    model = ResNet1D(dtype=jnp.bfloat16, width=8)
    x = jnp.ones((2, 1000, 12))
    variables = model.init(jax.random.key(0), x, train=False)
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))
    features = model.apply(variables, x, train=False)
    assert features.shape == (2, 64)
    assert features.dtype == jnp.float32
    assert model.apply(variables, x, train=False, pool=False).shape == (2, 32, 64)


def test_heads():
    x = jnp.ones((2, 8))
    tree = MLP((4,), norm=False).init(jax.random.key(0), x)["params"]
    assert set(tree) == {"out"}
    tree = MLP((16, 4), norm=False).init(jax.random.key(0), x)["params"]
    assert set(tree) == {"Dense_0", "out"} and tree["Dense_0"]["kernel"].shape == (8, 16)
    assert np.isfinite(jax.grad(lambda v: normalize(v).sum())(jnp.zeros((1, 3)))).all()
    np.testing.assert_allclose(jnp.linalg.norm(normalize(x), axis=-1), 1, rtol=1e-6)


@pytest.mark.parametrize("depth", [18, 50])
def test_the_fast_convolutions_are_as_near_the_truth_as_the_plain_ones(depth, monkeypatch):
    """Features, statistics and gradient of the network, against those in float64.

    A gradient through ReLUs jumps where rounding changes a sign, so in float32 the plain form
    itself is off by 1e-5 to 1e-1 of the largest value here: its error is the measure.
    """
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((4, 250, 12)), rng.standard_normal(128 if depth == 18 else 512)
    variables = ResNet1D(depth, width=16).init(jax.random.key(0), jnp.float32(x), train=False)

    def run(dtype):
        model = ResNet1D(depth, width=16, dtype=dtype)

        def loss(params, stats):
            tree = {"params": params, "batch_stats": stats}
            features, new = model.apply(tree, cast(x), train=True, mutable=["batch_stats"])
            return (features * cast(weight)).sum(), (features, new)

        def cast(array):
            return jnp.asarray(array, dtype)

        arguments = jax.tree.map(cast, (variables["params"], variables["batch_stats"]))
        (_, (features, new)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(*arguments)
        return features, new, gradient

    def errors(result):
        """Of each of the three, the largest of any array, relative to its largest value."""
        pairs = [
            zip(*map(jax.tree.leaves, p), strict=True) for p in zip(result, truth, strict=True)
        ]
        return [max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in p) for p in pairs]

    fast = run(jnp.float32)
    with monkeypatch.context() as patch:
        patch.setattr(conv1d, "winograd", conv1d.plain)
        plain = run(jnp.float32)
    with jax.enable_x64(True):
        truth = run(jnp.float64)
        for ours, theirs in zip(errors(fast), errors(plain), strict=True):
            assert 0 < ours < 3 * theirs + 1e-6


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_accelerators_forms_are_the_same_network(platform, monkeypatch):
    """The strided convolutions beside each other as one, and the mean over time made with the last
    sum: features, statistics and gradients, to rounding in float64."""
    monkeypatch.setattr(resnet1d, "STAGES", {18: (1, 1, 1, 2)})
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((4, 150, 12)), rng.standard_normal(32)

    def run(platform):
        model = ResNet1D(18, width=4, dtype=jnp.float64, platform=platform)
        variables = model.init(jax.random.key(0), x, train=False)

        def loss(params):
            tree = {**variables, "params": params}
            features, new = model.apply(tree, x, train=True, mutable=["batch_stats"])
            return (features * weight).sum(), (features, new)

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])

    with jax.enable_x64(True):
        one, other = run("cpu"), run(platform)
        assert jax.tree.structure(one) == jax.tree.structure(other)
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * float(jnp.abs(a).max()))
