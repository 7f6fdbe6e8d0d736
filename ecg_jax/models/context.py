"""Encoder, context and step-wise heads of the methods that predict what comes later in a record."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from ecg_jax import Config
from ecg_jax.errors import UserError
from ecg_jax.models import siamese
from ecg_jax.models.heads import MLP


class Outputs(NamedTuple):
    """Of x [..., T, 12]: features float32 [..., D], the mean over the map, for probes; projection
    [..., E], of the context of the whole record; map float32 [..., P, D], with
    P = floor(T / stretch)."""

    features: jax.Array
    projection: jax.Array
    map: jax.Array


class Predictive(nn.Module):
    """x [N, T, 12] -> Outputs of [N, ...].

    A loss applies `context` and the heads W_k (CPC equation 3), which are the parameter `heads`
    [K, H, D], by itself, to the positions that it draws.

    Attributes:
      context: (map [N, P, D], times int [A]) -> [N, A, H], contexts c_t of what lies up to each t.
      steps: K, how many positions ahead are predicted.
      stretch: samples of the stretches that the encoder sees, each by itself, and whose pooled
        features are the map's positions. (A position of its own map of a record sees 435 samples.)
      projector: of a context; None for the context itself.
    """

    encoder: nn.Module
    context: nn.Module
    steps: int
    stretch: int
    projector: MLP | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> Outputs:
        N, P = len(x), x.shape[1] // self.stretch
        apart = x[:, : P * self.stretch].reshape(N * P, self.stretch, -1)
        z = self.encoder(apart, train).reshape(N, P, -1)
        c = self.context(z, jnp.array([z.shape[1] - 1]))[:, 0]
        init = nn.initializers.lecun_normal(batch_axis=0)
        self.param("heads", init, (self.steps, c.shape[-1], z.shape[-1]))
        return Outputs(z.mean(axis=1), self.projector(c, train) if self.projector else c, z)


def predict(heads: jax.Array, c: jax.Array) -> jax.Array:
    """W_k c_t: heads [K, H, D], contexts c [..., H] -> [..., K, D]."""
    return jnp.einsum("...h,khd->...kd", c, heads)


def stretch(config: Config) -> int:
    """The samples of `model.stretch` seconds.

    Raises:
      UserError: they are fewer than the encoder needs.
    """
    samples = round(config.model.stretch * config.rate)
    if samples < (least := siamese.stride(config)):
        raise UserError(
            f"--config.model.stretch={config.model.stretch}: {samples} samples at {config.rate} "
            f"Hz, and the encoder needs {least} or more"
        )
    return samples
