"""ETP: ECG-Text Pre-training (Liu et al. 2023), equations 1-8; METS differs by its config only.

The text tower is frozen, so a report enters as its embedding, computed once. The ECG encoder and
one projection head per tower are trained with the symmetric contrastive loss (equations 1-5) and,
if `model.invariance` gives it a weight, with that between two views of an ECG (6-8).
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from ecg_jax import Config
from ecg_jax.errors import UserError
from ecg_jax.losses.contrastive import info_nce, sigmoid, symmetric_info_nce
from ecg_jax.methods import Encoded, Method, View
from ecg_jax.methods.shared import health
from ecg_jax.methods.shared.towers import chains, over_views, training_pass
from ecg_jax.models import siamese
from ecg_jax.models.chunked import check_chunks
from ecg_jax.models.heads import MLP, normalize
from ecg_jax.models.resnet1d import feature_maps, stages

MAX_SCALE = 100.0  # CLIP's bound on 1 / tau, where tau is learned
SIGMA_2 = 0.07  # temperature of equation 6

Tree = Any


def build(config: Config) -> Method:
    """config.model: depth, width, dtype, convolution, remat, dim, hidden, temperature,
    learn_temperature, same_report, spare_patient, soft_targets, loss, bias, invariance;
    config.parallel: loss, batch_norm; config.augment and, of the second view,
    config.augment_second: see `towers.chains`; config.accumulate: see `in_chunks`."""
    towers = EcgText(config)
    return Method(
        towers.init,
        towers.loss,
        towers.encode,
        towers.train_encode,
        towers.encode_text,
        bounded=towers.bounded if config.model.learn_temperature else None,
        stages=towers.stages,
    )


def check(config: Config) -> None:
    """Raises a UserError for options that exclude each other, or a batch that the chunks do not
    divide."""
    m, form = config.model, config.parallel.loss
    check_chunks(config.batch_size, config.accumulate)
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


class EcgText:
    """The ECG encoder, and a projection head for each tower."""

    def __init__(self, config: Config):
        """Raises a UserError: see `check` and `towers.chains`."""
        check(config)
        m = config.model
        self.model, self.form, self.chunks = m, config.parallel.loss, config.accumulate
        self.encoder, self.platform = siamese.encoder(config), siamese.platform_of(config)
        # Section 2.1 says "non-linear projectors", 3.2 "linear projection heads": with hidden = 0.
        self.head = MLP((m.hidden, m.dim) if m.hidden else (m.dim,), norm=False)
        self.steps, self.chains = len(config.augment), chains(config)
        self._train = training_pass(self.encoder, config)

    def init(self, key: jax.Array, view: View) -> tuple[Tree, Tree]:
        m = self.model
        k_encoder, k_ecg, k_text = jax.random.split(key, 3)
        variables = self.encoder.init(k_encoder, view.ecg, train=False)
        features = self.encoder.apply(variables, view.ecg, train=False)
        params = {
            "encoder": variables["params"],
            "ecg_head": self.head.init(k_ecg, features)["params"],
            "text_head": self.head.init(k_text, view.text)["params"],
        }
        if m.learn_temperature:
            params["log_scale"] = -jnp.log(jnp.float32(m.temperature))
        if m.loss == "sigmoid":
            params["bias"] = jnp.float32(m.bias)
        return params, {"batch_stats": variables["batch_stats"]}

    def loss(self, params: Tree, state: Tree, view: View, key: jax.Array):
        weight = self.model.invariance
        run = functools.partial(self._train, {"params": params["encoder"], **state})
        features, updated = over_views(run, self.views(key, view), self.chunks, self.platform)
        e, t = self.project(params, features[:, 0]), self.encode_text(params, view.text)
        value = self.contrast(params, e, t, view)
        metrics = {"temperature": self.temperature(params), **health.of_pairs(e, t)}
        if weight:
            metrics["invariance"] = invariance(features)
            value += weight * metrics["invariance"]
        return value, (updated, metrics)

    def encode(self, params: Tree, state: Tree, ecg: jax.Array, lead_mask: jax.Array) -> Encoded:
        del lead_mask  # a lead that is not there is zero, and that is all this encoder sees of it
        variables = {"params": params["encoder"], **state}
        features, inside = self.encoder.apply(
            variables, ecg, train=False, mutable=["intermediates"]
        )
        maps = feature_maps(inside, len(ecg))
        return Encoded(features, self.project(params, features), *maps)

    def train_encode(self, params: Tree, state: Tree, ecg: jax.Array, lead_mask: jax.Array):
        del lead_mask  # see encode
        return self._train({"params": params["encoder"], **state}, ecg)

    def stages(
        self, params: Tree, state: Tree, ecg: jax.Array, lead_mask: jax.Array, train: bool
    ) -> tuple[tuple, Tree]:
        del lead_mask  # see encode
        found, updated = stages(self.encoder, {"params": params["encoder"], **state}, ecg, train)
        return found, {**state, **updated}

    def encode_text(self, params: Tree, text: jax.Array) -> jax.Array:
        projected = self.head.apply({"params": params["text_head"]}, text)  # eq. 2
        return normalize(jnp.asarray(projected))

    def project(self, params: Tree, features: Any) -> jax.Array:
        projected = self.head.apply({"params": params["ecg_head"]}, features)  # eq. 1
        return normalize(jnp.asarray(projected))

    def views(self, key: jax.Array, view: View) -> jax.Array:
        """[B, V, T, 12]: the view that meets the report and, for equation 6, another one."""
        first, second = self.chains
        made = [first(key, view.ecg, view.lead_mask)[0]]
        if self.model.invariance:
            k_second = jax.random.fold_in(key, self.steps)  # compose uses those before
            made.append(second(k_second, view.ecg, view.lead_mask)[0])
        return jnp.stack(made, axis=1)

    def contrast(self, params: Tree, e: jax.Array, t: jax.Array, view: View) -> jax.Array:
        """The loss between embeddings e [B, E] of the ECGs and t [B, E] of their reports."""
        m, tau = self.model, self.temperature(params)
        group = view.text_id if m.same_report else None
        patient = view.patient if m.spare_patient else None
        if m.loss == "sigmoid":
            return sigmoid(e, t, tau, params["bias"], group, self.form, patient)
        if m.soft_targets:
            group = normalize(view.text)
        soft = m.soft_targets
        return symmetric_info_nce(e, t, tau, group, self.form, soft, patient)  # eqs 3-5

    def temperature(self, params: Tree) -> jax.Array:
        if not self.model.learn_temperature:
            return jnp.float32(self.model.temperature)
        return jnp.exp(-params["log_scale"])

    def bounded(self, params: Tree) -> Tree:
        """1 / tau at most CLIP's bound. Were the bound in the loss, what has gone beyond it would
        have no gradient, and never come back."""
        return {**params, "log_scale": jnp.minimum(params["log_scale"], math.log(MAX_SCALE))}


def invariance(features: Any) -> jax.Array:
    """Equation 6 of both views' features [B, 2, F], which are compared as they are (equation 7; the
    text projects them) and, as in equations 3 and 4, by their cosines."""
    e = normalize(features)
    return info_nce(e[:, 0], e[:, 1], SIGMA_2)
