"""ETP: ECG-Text Pre-training (Liu et al. 2023), equations 1-5; METS differs by its config only.

The text tower is frozen, so a report enters as its embedding, computed once. The ECG encoder and
one projection head per tower are trained with the symmetric contrastive loss.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ecg_jax import parallel
from ecg_jax.config import Config
from ecg_jax.data import augment
from ecg_jax.errors import UserError
from ecg_jax.losses.contrastive import sigmoid, symmetric_info_nce
from ecg_jax.methods import Encoded, Method, View
from ecg_jax.models.chunked import in_chunks
from ecg_jax.models.heads import Projection, normalize
from ecg_jax.models.resnet1d import ResNet1D, activations

MAX_SCALE = 100.0  # CLIP's bound on 1 / tau, where tau is learned


def build(config: Config) -> Method:
    """config.model: depth, width, dtype, convolution, remat, dim, hidden, temperature,
    learn_temperature, same_report, soft_targets, loss, bias; config.parallel: loss, batch_norm;
    config.augment: see `augment.compose`; config.accumulate: see `in_chunks`."""
    m, form, chunks = config.model, config.parallel.loss, config.accumulate
    if chunks < 1 or config.batch_size % chunks:
        raise UserError(
            f"a batch of {config.batch_size} does not divide into {chunks} chunks: "
            "set --config.accumulate to a divisor of it"
        )
    if m.soft_targets and m.loss == "sigmoid":
        raise UserError("model.soft_targets are of the info_nce loss: set it to 0 for the sigmoid")
    encoder = ResNet1D(m.depth, m.width, activations(m.dtype), form=m.convolution, remat=m.remat)
    ecg_head = Projection(m.dim, m.hidden)
    text_head = Projection(m.dim, m.hidden)
    augmentation = augment.compose(config.augment, config.rate)

    def init(key: jax.Array, view: View) -> tuple[dict, dict]:
        k_encoder, k_ecg, k_text = jax.random.split(key, 3)
        variables = encoder.init(k_encoder, view.ecg, train=False)
        features = encoder.apply(variables, view.ecg, train=False)
        params = {
            "encoder": variables["params"],
            "ecg_head": ecg_head.init(k_ecg, features)["params"],
            "text_head": text_head.init(k_text, view.text)["params"],
        }
        if m.learn_temperature:
            params["log_scale"] = -jnp.log(jnp.float32(m.temperature))
        if m.loss == "sigmoid":
            params["bias"] = jnp.float32(m.bias)
        return params, {"batch_stats": variables["batch_stats"]}

    def encode_text(params: dict, text: jax.Array) -> jax.Array:
        projected = text_head.apply({"params": params["text_head"]}, text)  # eq. 2
        return normalize(jnp.asarray(projected))

    def project(params: dict, features: Any) -> jax.Array:
        projected = ecg_head.apply({"params": params["ecg_head"]}, features)  # eq. 1
        return normalize(jnp.asarray(projected))

    def temperature(params: dict) -> jax.Array:
        if not m.learn_temperature:
            return jnp.float32(m.temperature)
        return 1 / jnp.minimum(jnp.exp(params["log_scale"]), MAX_SCALE)

    apply_training = functools.partial(encoder.apply, train=True, mutable=["batch_stats"])
    if config.parallel.batch_norm == "device":
        apply_training = parallel.per_device(apply_training)

    def train_encode(params: dict, state: dict, ecg: jax.Array, lead_mask: jax.Array | None):
        del lead_mask  # see encode
        return apply_training({"params": params["encoder"], **state}, ecg)

    def contrast(params: dict, e: jax.Array, t: jax.Array, group: jax.Array | None) -> jax.Array:
        tau = temperature(params)
        if m.loss == "sigmoid":
            return sigmoid(e, t, tau, params["bias"], group, form)
        return symmetric_info_nce(e, t, tau, group, form, m.soft_targets)  # eqs 3-5

    def positives(view: View) -> jax.Array | None:
        if m.soft_targets:
            return normalize(view.text)
        return view.text_id if m.same_report else None

    def loss(params: dict, state: dict, view: View, key: jax.Array):
        ecg, _ = augmentation(key, view.ecg, view.lead_mask)
        train_chunk = functools.partial(train_encode, params, state, lead_mask=None)
        features, updated = in_chunks(train_chunk, ecg, chunks)
        e, t = project(params, features), encode_text(params, view.text)
        value = contrast(params, e, t, positives(view))
        metrics = {
            "temperature": temperature(params),
            "positive_cosine": jnp.sum(e * t, axis=-1).mean(),
        }
        return value, (updated, metrics)

    def encode(params: dict, state: dict, ecg: jax.Array, lead_mask: jax.Array) -> Encoded:
        del lead_mask  # a lead that is not there is zero, and that is all this encoder sees of it
        features = encoder.apply({"params": params["encoder"], **state}, ecg, train=False)
        return Encoded(features, project(params, features))

    return Method(init, loss, encode, train_encode, encode_text)
