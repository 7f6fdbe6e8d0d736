"""Encoder and heads of ASTCL: a record as a whole, its segments, and a judge of its views."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from ecg_jax.models.heads import MLP


class Outputs(NamedTuple):
    """Of views x [..., T, 12], all float32: features [..., D] and projection [..., P] of the whole
    record; prediction [..., P] of another view's projection; parts [..., S, P] of S segments;
    forecast [..., S - 1, P] of the segments after the first; logit [...] of the discriminator."""

    features: jax.Array
    projection: jax.Array
    prediction: jax.Array
    parts: jax.Array
    forecast: jax.Array
    logit: jax.Array


class Spatiotemporal(nn.Module):
    """x [N, T, 12] -> Outputs of [N, ...].

    Attributes:
      segments: S, of the encoder's map, of P // S positions of the encoder's map each.
      adversarial: see `reverse`.
    """

    encoder: nn.Module
    projector: MLP
    predictor: MLP
    forecaster: MLP
    discriminator: MLP
    segments: int
    adversarial: float

    def __call__(self, x: jax.Array, train: bool) -> Outputs:
        maps = self.encoder(x, train, pool=False).astype(jnp.float32)
        N, L, D = maps.shape
        features, each = maps.mean(axis=1), L // self.segments
        parts = maps[:, : self.segments * each].reshape(N, self.segments, each, D).mean(axis=2)
        z = self.projector(jnp.concatenate([features[:, None], parts], axis=1), train)
        whole, parts = z[:, 0], z[:, 1:]
        prediction, forecast = self.predictor(whole, train), self.forecaster(parts[:, :-1], train)
        logit = self.discriminator(reverse(features, self.adversarial), train)[:, 0]
        return Outputs(features, whole, prediction, parts, forecast, logit)


def reverse(x: jax.Array, strength: float) -> jax.Array:
    """x, with its gradient turned round and multiplied by `strength` (Ganin and Lempitsky 2015,
    arXiv 1409.7495, section 3): what follows learns to tell, what comes before to hide."""
    fixed = jax.lax.stop_gradient(x)
    return fixed + strength * (fixed - x)
