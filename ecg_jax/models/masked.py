"""What wav2vec 2.0 is pre-trained with: an encoder that is shown records with hidden tokens, and
the quantized targets of these."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from ecg_jax.models import span_mask
from ecg_jax.models.noise import Draws, dropout
from ecg_jax.models.quantizer import CODES, GROUPS, WIDTH, Quantizer, temperature
from ecg_jax.models.wav2vec2 import torch_linear


class Outputs(NamedTuple):
    """Of segments [N, T, 12]: features float32 [N, D], the mean over the last layer's tokens, and
    the same as projection: CMSC has no head."""

    features: jax.Array
    projection: jax.Array


class Hidden(NamedTuple):
    """Of segments with M hidden tokens each, all float32 but codes: features [N, D]; context and
    target [N, M, 256]; codes int32 [N, M, G]; logits [N, M, G, V]; penalty [N], the mean square of
    what the convolutions make; tau [N], the temperature of all."""

    features: jax.Array
    context: jax.Array
    target: jax.Array
    codes: jax.Array
    logits: jax.Array
    penalty: jax.Array
    tau: jax.Array


class Masked(nn.Module):
    """x [N, T, 12] -> Outputs, of segments of `samples` each: the mean of a record's (what is left
    over at its end is not seen).

    Attributes:
      samples: of a segment; a record that is shorter is one.
      count: M, the hidden tokens of a segment.
    """

    encoder: nn.Module  # a Wav2Vec2
    samples: int
    count: int

    def setup(self) -> None:
        width = self.encoder.size.width
        self.token = self.param("token", nn.initializers.uniform(1.0), (width,))
        self.quantizer = Quantizer()
        init, target = torch_linear(width), torch_linear(WIDTH)
        self.context_head = nn.Dense(WIDTH, kernel_init=init, bias_init=init)
        self.target_head = nn.Dense(WIDTH, kernel_init=target, bias_init=target)

    def __call__(self, x: jax.Array, train: bool) -> Outputs:
        if self.is_initializing():
            self.hide(x[:, : self.samples])
        features = in_segments(self.encoder, x, self.samples, train)
        return Outputs(features, features)

    def hide(self, x: jax.Array, train: bool = True) -> Hidden:
        """Pre-training's pass; what it draws comes from the encoder's own noise."""
        encoder = self.encoder
        draws = encoder.noise(train) or Draws(jax.random.key(0), jnp.uint32(0))  # at the start
        key, updates = draws
        k_mask, k_gumbel = jax.random.split(jax.random.fold_in(key, 0))
        raw, z = encoder.tokens(x)
        N, P, _ = z.shape
        at = span_mask.fixed(k_mask, N, P, self.count)
        masked = jnp.zeros((N, P), bool).at[jnp.arange(N)[:, None], at].set(True)
        y = encoder.contextual(z, key, masked, self.token)
        u = dropout(z, encoder.rates.layers, key, 3)  # targets are of what was not hidden
        own = at[..., None]
        u, hidden = (jnp.take_along_axis(t.astype(jnp.float32), own, axis=1) for t in (u, y))
        tau = temperature(updates)
        noise = jax.random.gumbel(k_gumbel, (N, self.count, GROUPS, CODES))
        quantized = self.quantizer(u, tau, noise)
        return Hidden(
            y.mean(axis=1, dtype=jnp.float32),
            self.context_head(hidden),
            self.target_head(quantized.vector),
            quantized.codes,
            quantized.logits,
            jnp.square(raw).mean(axis=(1, 2)),
            jnp.broadcast_to(tau, (N,)),
        )


class Segmented(nn.Module):
    """Any encoder on segments of `samples`, without tokens to hide: as `Masked`."""

    encoder: nn.Module
    samples: int

    def __call__(self, x: jax.Array, train: bool) -> Outputs:
        features = in_segments(self.encoder, x, self.samples, train)
        return Outputs(features, features)


def in_segments(encoder: nn.Module, x: jax.Array, samples: int, train: bool) -> jax.Array:
    """float32 [N, D]: the mean of the encoder's features of each record's segments."""
    N, T, C = x.shape
    n = max(T // samples, 1)
    features = encoder(x[:, : n * min(samples, T)].reshape(N * n, -1, C), train)
    return features.reshape(N, n, -1).mean(axis=1)
