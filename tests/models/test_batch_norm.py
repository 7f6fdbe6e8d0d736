"""BatchNorm with what follows it, against Flax's BatchNorm, ReLU and pooling under autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from ecg_jax.models import norm_pool
from ecg_jax.models.batch_norm import BatchNorm, Branch, activate, relu, sums, wide
from ecg_jax.models.norm_pool import relu_mean, relu_pool
from ecg_jax.runtime import parallel

B, C = 4, 6
PLATFORMS = ["cpu", "gpu", "tpu"]
KINDS = ["alone", "residual", "two", "pool", "mean", "mean of two"]
POOLED = ("mean", "mean of two")


class Ours(nn.Module):
    kind: str
    train: bool
    platform: str

    @nn.compact
    def __call__(self, y, other):
        options = {"train": self.train, "platform": self.platform}
        a = BatchNorm(name="a", **options)(y)
        if self.kind == "pool":
            return relu_pool(a, **options)
        both = (a, BatchNorm(name="b", **options)(other)) if "two" in self.kind else (a,)
        residual = other if self.kind in ("residual", "mean") else None
        if self.kind in POOLED and self.train:
            return relu_mean(*both, residual=residual, platform=self.platform)
        z = activate(relu, *both, residual=residual, **options)
        return z.mean(axis=1, dtype=wide(z).dtype) if self.kind in POOLED else z


class Theirs(nn.Module):
    kind: str
    train: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, y, other):
        def norm(name):
            return nn.BatchNorm(
                use_running_average=not self.train,
                momentum=0.9,
                dtype=self.dtype,
                use_fast_variance=False,
                name=name,
            )

        z = norm("a")(y)
        if "two" in self.kind:
            z += norm("b")(other)
        if self.kind in ("residual", "mean"):
            z += other
        z = nn.relu(z)
        if self.kind in POOLED:
            return z.mean(axis=1)
        return nn.max_pool(z, (3,), (2,), ((1, 1),)) if self.kind == "pool" else z


def computed(network, variables, arrays, weight):
    """Output, new statistics and the gradients in parameters and arrays."""

    def loss(params, arrays):
        tree = {**variables, "params": params}
        z, new = network.apply(tree, *arrays, mutable=["batch_stats"])
        return jnp.sum(z.astype(weight.dtype) * weight), (z, new)

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, (z, new)), gradients = run(variables["params"], arrays)
    return {"z": z, "new": new, "gradients": gradients}


def case(kind, T, dtype, mean=0.5):
    rng = np.random.default_rng(T)
    arrays = [jnp.asarray(rng.normal(mean, 2, (B, T, C)), dtype) for _ in range(2)]
    if kind == "pool":
        T = -(-T // 2)
    wide = jnp.promote_types(dtype, jnp.float32)
    shape = (B, C) if kind in POOLED else (B, T, C)
    weight = jnp.asarray(rng.standard_normal(shape), wide)
    vector = {name: rng.uniform(0.5, 1.5, C) for name in ("scale", "bias", "mean", "var")}
    vector["scale"][0] = 0.0  # no division by a scale
    vector["scale"][1] *= -1
    names = ("a", "b") if "two" in kind else ("a",)
    vector = {k: jnp.asarray(v, wide) for k, v in vector.items()}
    variables = {
        "params": {n: {k: vector[k] for k in ("scale", "bias")} for n in names},
        "batch_stats": {n: {k: vector[k] for k in ("mean", "var")} for n in names},
    }
    return variables, arrays, weight


def close(ours, theirs, tolerance):
    paths = jax.tree_util.tree_leaves_with_path(theirs)
    for (path, b), a in zip(paths, jax.tree.leaves(ours), strict=True):
        assert a.dtype == b.dtype
        a, b = (np.asarray(x, np.float64) for x in (a, b))
        scale = max(np.abs(b).max(), 1e-3)
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(a, b, atol=tolerance * scale, rtol=0, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("T", [7, 8])
def test_is_flax_batch_norm_in_float64(kind, train, platform, T):
    with jax.enable_x64(True):
        c = case(kind, T, jnp.float64)
        if kind == "pool" and not train:  # where autodiff shares a gradient between equal values
            c[0]["params"]["a"]["scale"] += 0.1
        theirs = computed(Theirs(kind, train, jnp.float64), *c)
        close(computed(Ours(kind, train, platform), *c), theirs, 1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
def test_in_few_bits_is_near_float64(kind, platform, dtype, tolerance):
    """A mean of ten deviations: what squares of it would cost in digits the running mean saves."""
    variables, arrays, weight = case(kind, 9, dtype, mean=20.0 if dtype == jnp.float32 else 0.5)
    for tree in variables["batch_stats"].values():
        tree["mean"] = jnp.full(C, 19.0 if dtype == jnp.float32 else 0.0)
    ours = computed(Ours(kind, True, platform), variables, arrays, weight)
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (variables, arrays, weight))
        theirs = computed(Theirs(kind, True, jnp.float64), *exact)
    theirs = jax.tree.map(lambda a, b: jnp.asarray(np.asarray(b), a.dtype), ours, theirs)
    close(ours, theirs, tolerance)


def test_parameters_are_those_of_flax():
    variables, arrays, _ = case("two", 8, jnp.float32)
    ours = Ours("two", True, "cpu").init(jax.random.key(0), *arrays)
    theirs = Theirs("two", True, jnp.float32).init(jax.random.key(0), *arrays)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert jax.tree.structure(ours) == jax.tree.structure(variables)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_on_each_device_by_itself(kind, platform):
    """In `shard_map` the gradient is the sum of those of the devices, each with its statistics."""
    variables, arrays, weight = case(kind, 8, jnp.float32)
    network = Ours(kind, True, platform)
    mesh = parallel.make_mesh(jax.devices()[:2])

    def part(params, *parts):
        vary = jax.tree.map(lambda v: jax.lax.pcast(v, "data", to="varying"), params)
        stats = jax.tree.map(
            lambda v: jax.lax.pcast(v, "data", to="varying"), variables["batch_stats"]
        )
        tree = {"params": vary, "batch_stats": stats}
        z, _ = network.apply(tree, *parts, mutable=["batch_stats"])
        return z

    over = jax.shard_map(part, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P("data"))

    def loss(params, arrays):
        return jnp.sum(over(params, *arrays) * weight)

    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(
        variables["params"], arrays
    )
    halves = []
    for rows in (slice(0, 2), slice(2, 4)):
        halves.append(
            computed(network, variables, [a[rows] for a in arrays], weight[rows])["gradients"]
        )
    together = jax.tree.map(jnp.add, halves[0][0], halves[1][0])
    close(gradients[0], together, 1e-5)
    close(gradients[1], jax.tree.map(lambda *p: jnp.concatenate(p), *(h[1] for h in halves)), 1e-5)
    assert np.isfinite(value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_gets_no_mask(kind):
    """XLA would write it to memory."""
    c = case(kind, 8, jnp.float32)
    text = str(jax.make_jaxpr(lambda *a: computed(Ours(kind, True, "gpu"), *a))(*c))
    assert "bool[" not in text.replace("bool[]", "") and "select_n" not in text


def test_of_equal_values_the_first_has_the_gradient():
    none, one = jnp.zeros(1), jnp.ones(1)
    b = Branch(jnp.ones((1, 4, 1)), one, one, none, one, None)
    live, *shares = norm_pool._winners(b)
    np.testing.assert_array_equal(live.ravel(), [1, 1])
    np.testing.assert_array_equal(np.ravel(shares), [0, 1, 1, 0, 0, 0])


@pytest.mark.parametrize("B", [6, 8])
def test_sums_of_many_channels(B):
    """On a GPU of several records at a time; two in one complex number, and one by itself."""
    a, b, c = np.random.default_rng(0).standard_normal((3, B, 5, 256))
    with jax.enable_x64(True):
        for groups in (((a, b),), ((a,), (b,), (c,))):
            arrays = [tuple(jnp.asarray(x) for x in group) for group in groups]
            found = sums(*arrays, platform="gpu")
            for x, y in zip(found, sum(groups, ()), strict=True):
                np.testing.assert_allclose(x, y.sum((0, 1)), rtol=0, atol=1e-12)
