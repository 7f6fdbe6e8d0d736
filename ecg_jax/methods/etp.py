"""ETP: ECG-Text Pre-training (Liu et al. 2023), equations 1-8; METS differs by its config only.

The text tower is frozen, so a report enters as its embedding, computed once. The ECG encoder and
one projection head per tower are trained with the symmetric contrastive loss (equations 1-5) and,
if `model.invariance` gives it a weight, with that between two views of an ECG (6-8).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ecg_jax import Config
from ecg_jax.data import augment
from ecg_jax.errors import UserError
from ecg_jax.losses.contrastive import info_nce, sigmoid, symmetric_info_nce
from ecg_jax.methods import Encoded, Method, View
from ecg_jax.methods.shared import health
from ecg_jax.methods.shared.towers import over_views, training_pass
from ecg_jax.models import siamese
from ecg_jax.models.chunked import check_chunks
from ecg_jax.models.heads import MLP, normalize

MAX_SCALE = 100.0  # CLIP's bound on 1 / tau, where tau is learned
SIGMA_2 = 0.07  # temperature of equation 6


def build(config: Config) -> Method:
    """config.model: depth, width, dtype, convolution, remat, dim, hidden, temperature,
    learn_temperature, same_report, soft_targets, loss, bias, invariance; config.parallel: loss,
    batch_norm; config.augment and, of the second view, config.augment_second: see
    `augment.compose`; config.accumulate: see `in_chunks`."""
    m, form, chunks = config.model, config.parallel.loss, config.accumulate
    check_chunks(config.batch_size, chunks)
    if m.soft_targets and m.loss == "sigmoid":
        raise UserError("model.soft_targets are of the info_nce loss: set it to 0 for the sigmoid")
    if m.invariance and not (config.augment or config.augment_second):
        raise UserError(
            "model.invariance compares two augmented views, and config.augment is empty: name "
            "augmentations, or set it to 0"
        )
    if m.invariance and form != "plain":
        raise UserError(
            f"model.invariance has the plain form only: not with --config.parallel.loss={form}"
        )
    if config.augment_second and not m.invariance:
        raise UserError(
            "--config.augment_second is of model.invariance, which is 0: leave it empty"
        )
    encoder = siamese.encoder(config)
    # Section 2.1 says "non-linear projectors", 3.2 "linear projection heads": with hidden = 0.
    head = MLP((m.hidden, m.dim) if m.hidden else (m.dim,), norm=False)
    augmentation = augment.compose(config.augment, config.rate)
    second = augment.compose(config.augment_second or config.augment, config.rate)

    def init(key: jax.Array, view: View) -> tuple[dict, dict]:
        k_encoder, k_ecg, k_text = jax.random.split(key, 3)
        variables = encoder.init(k_encoder, view.ecg, train=False)
        features = encoder.apply(variables, view.ecg, train=False)
        params = {
            "encoder": variables["params"],
            "ecg_head": head.init(k_ecg, features)["params"],
            "text_head": head.init(k_text, view.text)["params"],
        }
        if m.learn_temperature:
            params["log_scale"] = -jnp.log(jnp.float32(m.temperature))
        if m.loss == "sigmoid":
            params["bias"] = jnp.float32(m.bias)
        return params, {"batch_stats": variables["batch_stats"]}

    def encode_text(params: dict, text: jax.Array) -> jax.Array:
        projected = head.apply({"params": params["text_head"]}, text)  # eq. 2
        return normalize(jnp.asarray(projected))

    def project(params: dict, features: Any) -> jax.Array:
        projected = head.apply({"params": params["ecg_head"]}, features)  # eq. 1
        return normalize(jnp.asarray(projected))

    def temperature(params: dict) -> jax.Array:
        if not m.learn_temperature:
            return jnp.float32(m.temperature)
        return 1 / jnp.minimum(jnp.exp(params["log_scale"]), MAX_SCALE)

    train = training_pass(encoder, config)

    def train_encode(params: dict, state: dict, ecg: jax.Array, lead_mask: jax.Array):
        del lead_mask  # see encode
        return train({"params": params["encoder"], **state}, ecg)

    def contrast(params: dict, e: jax.Array, t: jax.Array, group: jax.Array | None) -> jax.Array:
        tau = temperature(params)
        if m.loss == "sigmoid":
            return sigmoid(e, t, tau, params["bias"], group, form)
        return symmetric_info_nce(e, t, tau, group, form, m.soft_targets)  # eqs 3-5

    def positives(view: View) -> jax.Array | None:
        if m.soft_targets:
            return normalize(view.text)
        return view.text_id if m.same_report else None

    def views(key: jax.Array, view: View) -> jax.Array:
        """[B, V, T, 12]: the view that meets the report and, for equation 6, another one."""
        made = [augmentation(key, view.ecg, view.lead_mask)[0]]
        if m.invariance:
            k_second = jax.random.fold_in(key, len(config.augment))  # compose uses those before
            made.append(second(k_second, view.ecg, view.lead_mask)[0])
        return jnp.stack(made, axis=1)

    def invariance(features: Any) -> jax.Array:
        """Equation 6 of both views' features [B, 2, F], which are compared as they are (equation
        7; the text projects them) and, as in equations 3 and 4, by their cosines."""
        e = normalize(features)
        return info_nce(e[:, 0], e[:, 1], SIGMA_2)

    def loss(params: dict, state: dict, view: View, key: jax.Array):
        run = functools.partial(train, {"params": params["encoder"], **state})
        features, updated = over_views(run, views(key, view), chunks)
        e, t = project(params, features[:, 0]), encode_text(params, view.text)
        value = contrast(params, e, t, positives(view))
        metrics = {"temperature": temperature(params), **health.of_pairs(e, t)}
        if m.invariance:
            metrics["invariance"] = invariance(features)
            value += m.invariance * metrics["invariance"]
        return value, (updated, metrics)

    def encode(params: dict, state: dict, ecg: jax.Array, lead_mask: jax.Array) -> Encoded:
        del lead_mask  # a lead that is not there is zero, and that is all this encoder sees of it
        features = encoder.apply({"params": params["encoder"], **state}, ecg, train=False)
        return Encoded(features, project(params, features))

    return Method(init, loss, encode, train_encode, encode_text)
