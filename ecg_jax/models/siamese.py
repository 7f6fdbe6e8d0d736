"""Encoder and heads of the methods that compare views of a record."""

import math
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from ecg_jax import Config
from ecg_jax.errors import UserError
from ecg_jax.models import resnet1d, s4, wav2vec2
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

    encoder: nn.Module
    projector: MLP
    predictor: MLP | None = None

    def __call__(self, x: jax.Array, train: bool) -> Outputs:
        features = self.encoder(x, train)
        projection = self.projector(features, train)
        prediction = self.predictor(projection, train) if self.predictor else None
        return Outputs(features, projection, prediction)


ENCODERS = ("resnet1d", "wav2vec2", "s4")


def encoder(config: Config) -> nn.Module:
    """The encoder of `config.model`, (x [N, T, 12], train, pool) -> features or, with pool=False,
    their map: `encoder`, one of `ENCODERS`; dtype and remat. Of resnet1d: depth, width,
    convolution. Of the others: size; of wav2vec2, where a config has them: strides, token,
    extractor, dropout, attention_dropout, conv_gradient.

    Raises:
      UserError: no such encoder or size, or a field of the ResNet's set for another encoder.
    """
    m, platform = config.model, platform_of(config)
    dtype = activations(m.dtype, platform)
    if m.encoder == "resnet1d":
        options = {"form": m.convolution, "remat": m.remat, "platform": platform}
        return ResNet1D(m.depth, m.width, dtype, **options)
    if m.encoder not in ENCODERS:
        raise UserError(f"--config.model.encoder={m.encoder}: choose one of {', '.join(ENCODERS)}")
    sizes: dict[str, Any] = wav2vec2.SIZES if m.encoder == "wav2vec2" else s4.SIZES
    for name, usual in (("depth", 18), ("width", 64)):
        if m.get(name, usual) != usual:
            raise UserError(
                f"--config.model.{name}={m[name]} is of resnet1d: {m.encoder} has "
                f"--config.model.size, one of {', '.join(sizes)}"
            )
    if m.size not in sizes:
        raise UserError(f"--config.model.size={m.size}: {m.encoder} has {', '.join(sizes)}")
    if m.encoder == "s4":
        return s4.S4(sizes[m.size], dtype=dtype, remat=m.remat)
    return wav2vec2.Wav2Vec2(
        sizes[m.size],
        strides(config),
        m.get("token", 0) or wav2vec2.TOKENS.get(m.size, wav2vec2.TOKEN),
        m.get("extractor", "group"),
        wav2vec2.Dropout(m.get("dropout", 0.1), m.get("attention_dropout", 0.0)),
        m.get("conv_gradient", 0.1),
        dtype=dtype,
        remat=m.remat,
        platform=platform,
    )


def strides(config: Config) -> tuple[int, ...]:
    """Of wav2vec2's convolutions: `model.strides` or, where that is empty or not there, those with
    which a token lasts 32 to 64 ms at the config's rate."""
    return tuple(config.model.get("strides", ())) or wav2vec2.STRIDES[config.rate]


def stride(config: Config) -> int:
    """Samples between two positions of the encoder's map; a record needs that many."""
    if config.model.encoder == "wav2vec2":
        return math.prod(strides(config))
    return resnet1d.STRIDE if config.model.encoder == "resnet1d" else s4.STRIDE


def positions(config: Config, samples: int) -> int:
    """How many the encoder's map of so many samples has."""
    if config.model.encoder == "resnet1d":  # its convolutions pad
        return -(-samples // stride(config))
    return max(samples // stride(config), 1)


def platform_of(config: Config) -> str:
    """That which `methods.build` was given; by default of the devices that are here."""
    return config.get("platform") or parallel.platform()
