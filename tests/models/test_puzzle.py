"""PIRL's g: every piece by itself, and their order."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ecg_jax.models.heads import MLP
from ecg_jax.models.puzzle import Puzzle


class Mean(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.relu(nn.Dense(8)(x)).mean(axis=1)


def test_pieces_are_encoded_alone_and_their_order_counts():
    puzzle = Puzzle(Mean(), MLP((4,)), MLP((4,)))
    x = jax.random.normal(jax.random.key(0), (2, 3, 16, 12))
    y, variables = puzzle.init_with_output(jax.random.key(1), x, train=True)
    params = variables["params"]
    assert y.shape == (2, 4)
    encoder, head = params["encoder"]["Dense_0"], params["piece_head"]["out"]
    pieces = jax.nn.relu(x @ encoder["kernel"] + encoder["bias"]).mean(axis=2)
    pieces = pieces @ head["kernel"] + head["bias"]
    last = params["puzzle_head"]["out"]
    expected = pieces.reshape(2, 12) @ last["kernel"] + last["bias"]
    assert jnp.allclose(y, expected, atol=1e-5)
    assert not jnp.allclose(y, puzzle.apply(variables, x[:, ::-1], train=True), atol=1e-2)
