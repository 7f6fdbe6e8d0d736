"""Encoder and heads of the methods that compare views of a record."""

from typing import NamedTuple

import jax
from flax import linen as nn

from ecg_jax import Config
from ecg_jax.models.heads import MLP
from ecg_jax.models.resnet1d import ResNet1D, activations
from ecg_jax.runtime import parallel


class Outputs(NamedTuple):
    """Of views x [..., T, 12]: features float32 [..., D], for probes; projection [..., P], which
    the loss compares; prediction [..., P], None without a predictor."""

    features: jax.Array
    projection: jax.Array
    prediction: jax.Array | None = None


class Siamese(nn.Module):
    """x [N, T, 12] -> Outputs of [N, ...]."""

    encoder: ResNet1D
    projector: MLP
    predictor: MLP | None = None

    def __call__(self, x: jax.Array, train: bool) -> Outputs:
        features = self.encoder(x, train)
        projection = self.projector(features, train)
        prediction = self.predictor(projection, train) if self.predictor else None
        return Outputs(features, projection, prediction)


def encoder(config: Config) -> ResNet1D:
    """The encoder of `config.model`: depth, width, dtype, convolution, remat."""
    m, platform = config.model, platform_of(config)
    dtype = activations(m.dtype, platform)
    return ResNet1D(m.depth, m.width, dtype, form=m.convolution, remat=m.remat, platform=platform)


def platform_of(config: Config) -> str:
    """That which `methods.build` was given; by default of the devices that are here."""
    return config.get("platform") or parallel.platform()
