"""Products are counted as they are defined."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import workload
from configs import etp, simclr
from ecg_jax.planning import flops


def test_etp_is_its_convolutions_and_heads():
    c = etp.get_config("rate=100")
    found = flops.flops_per_record(c, width=768)
    convolutions = workload.flops_per_record(500)  # `crop` leaves 5 s of a record
    heads = 2 * 3 * (512 + 768) * 512 - 2 * 768 * 512  # the reports' embeddings have no gradient
    pairs = 2 * 5 * 128 * 512  # similarities with their gradients, and of what is watched
    assert found == pytest.approx(convolutions + heads + pairs, rel=1e-6)


@pytest.mark.parametrize(("field", "value"), [("convolution", "winograd"), ("remat", True)])
def test_the_definition_does_not_change_with_the_form(field, value):
    c = simclr.get_config("rate=100")
    c.model.width, c.batch_size = 4, 4
    before = flops.flops_per_record(c, width=0)
    c.model[field] = value
    assert flops.flops_per_record(c, width=0) == before


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_a_convolution_take_twice_as_much(stride):
    def conv(x, w):
        numbers = ("NWC", "WIO", "NWC")
        return jax.lax.conv_general_dilated(
            x, w, (stride,), [(1, 1)], dimension_numbers=numbers
        ).sum()

    x, w = jnp.zeros((2, 16, 4)), jnp.zeros((3, 4, 8))
    forward = 2 * 2 * (16 // stride) * 3 * 4 * 8
    assert flops.of_jaxpr(jax.make_jaxpr(conv)(x, w)) == forward
    both = jax.make_jaxpr(jax.grad(conv, (0, 1)))(x, w)
    assert flops.of_jaxpr(both) == pytest.approx(3 * forward, rel=0.1)


def test_loops_and_branches():
    def run(x, way):
        x = jax.lax.scan(lambda x, _: (x @ x, None), x, length=5)[0]
        return jax.lax.cond(way, lambda x: x @ x @ x, lambda x: x, x)

    jaxpr = jax.make_jaxpr(run)(jnp.zeros((8, 8)), True)
    assert flops.of_jaxpr(jaxpr) == (5 + 2) * 2 * 8**3
