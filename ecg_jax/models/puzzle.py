"""The pieces of a record, encoded one by one and put together (PIRL's g)."""

import jax
from flax import linen as nn

from ecg_jax.models.heads import MLP


class Puzzle(nn.Module):
    """x [N, K, T, 12], K pieces -> float32 [N, P].

    Misra and van der Maaten 2020, arXiv 1912.01991, section 2.3: each piece is encoded and
    projected, and the K vectors, side by side, are projected once more.
    """

    encoder: nn.Module
    piece_head: MLP
    puzzle_head: MLP

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        N, K = x.shape[:2]
        vectors = self.piece_head(self.encoder(x.reshape(N * K, *x.shape[2:]), train), train)
        return self.puzzle_head(vectors.reshape(N, -1), train)
