"""Every method's training step compiles for devices that are not here, as a small network."""

import importlib

import agreement
import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jax.sharding import NamedSharding, PartitionSpec

from ecg_jax.models.batch_norm import BatchNorm
from ecg_jax.models.conv1d import Conv
from ecg_jax.models.norm_pool import relu_pool
from ecg_jax.planning import hlo, program, targets


@pytest.fixture(scope="module", params=["v5e:2x2", "h100"])
def mesh(request):
    target = targets.parse(request.param)
    if not targets.installed(target.chip):
        pytest.skip(f"the compiler for {request.param} is not installed")
    return target.mesh()


@pytest.mark.parametrize("name", agreement.METHODS)
def test_a_training_step(mesh, name, monkeypatch):
    agreement.shallow(monkeypatch.setattr)
    config = importlib.import_module(f"configs.{name}").get_config("rate=100")
    config.update(batch_size=16, shards=16, seconds=5.0)
    agreement.narrow(config, dtype="bfloat16", **agreement.OWN.get(name, {}))
    for chain in ("augment", "augment_second"):
        config[chain] = config[chain][:2]
    width = 24 if "text" in config else 0
    step = program.trace(config, mesh, records=512, width=width, length=1)
    assert step.compile().memory_analysis().temp_size_in_bytes >= 0


class Stem(nn.Module):
    """A residual network's beginning and a convolution that its output is kept for."""

    @nn.compact
    def __call__(self, x):
        options = {"dtype": jnp.bfloat16, "platform": "tpu"}
        x = Conv(64, 7, 2, **options)(x)
        x = relu_pool(BatchNorm(True, platform="tpu")(x), train=True, platform="tpu")
        return Conv(64, 3, **options)(x)


def test_on_a_tpu_the_pooling_stays_in_bfloat16():
    """What the stem moves, forward and backward, in arrays of the first convolution's output."""
    target = targets.parse("v5e:1x1")
    if not targets.installed(target.chip):
        pytest.skip("the compiler for it is not installed")
    everywhere = NamedSharding(target.mesh(), PartitionSpec())
    B, T = 128, 1000
    x = jax.ShapeDtypeStruct((B, T, 12), jnp.bfloat16)

    def loss(params, stats, x):
        tree = {"params": params, "batch_stats": stats}
        y, new = Stem().apply(tree, x, mutable=["batch_stats"])
        return jnp.sum(jnp.square(y.astype(jnp.float32))), new

    tree = jax.eval_shape(Stem().init, jax.random.key(0), x)
    arguments = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=everywhere),
        (tree["params"], tree["batch_stats"], x),
    )
    compiled = jax.jit(jax.grad(loss, has_aux=True)).lower(*arguments).compile()
    arrays = hlo.count(compiled.as_text()).whole / (B * T // 2 * 64 * 2)
    print(f"the stem on a TPU moves {arrays:.1f} arrays")
    assert arrays < 20  # with the gradient written out as for a GPU 50
