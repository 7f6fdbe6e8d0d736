"""CPC (van den Oord et al. 2018, arXiv 1807.03748): from what a record has shown so far, tell what
comes next from what comes at other times and in other records.

The encoder sees each stretch of a record by itself, as the paper's sees overlapping patches of an
image (section 3.2) or strided windows of sound (3.1): a position of ResNet-18's own map has a
receptive field of 435 samples, so that a context would have seen what it predicts. BatchNorm's
statistics are of all stretches.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ecg_jax import Config
from ecg_jax.data import augment
from ecg_jax.errors import UserError
from ecg_jax.losses.future_nce import predictive_nce
from ecg_jax.methods import Method, View
from ecg_jax.methods.shared import health
from ecg_jax.methods.shared.towers import Towers
from ecg_jax.models.context import Predictive, predict, stretch
from ecg_jax.models.heads import normalize
from ecg_jax.models.siamese import encoder


class Recurrent(nn.Module):
    """g_ar of section 2.2, a GRU: (map [N, P, D], times [A]) -> contexts [N, A, hidden]."""

    hidden: int

    @nn.compact
    def __call__(self, z: jax.Array, times: jax.Array) -> jax.Array:
        c = nn.RNN(nn.GRUCell(self.hidden, name="gru"))(z)
        return jnp.asarray(c)[:, times]


def build(config: Config) -> Method:
    """config.model: stretch, the seconds that the encoder sees at once; hidden of the GRU; steps K
    that are predicted; context, the number of stretches that the GRU reads; times, how many of
    them are predicted from; see `Towers`.

    Raises:
      UserError: no units or steps, more times than positions to draw them from, or records too
        short.
    """
    m = config.model
    samples = check(config)
    gru = Recurrent(m.hidden)
    towers = Towers(config, Predictive(encoder(config), gru, m.steps, samples), second=False)

    def loss(params: dict, state: dict, view: View, key: jax.Array):
        k_augment, k_start, k_times = jax.random.split(key, 3)
        x, _ = towers.chains[0](k_augment, view.ecg, view.lead_mask)
        out, updated = towers.train(params, state, x[:, None])
        z = out.map[:, 0]
        # One part of the map for all records, which meet each other at the same time.
        length = m.context + m.steps
        start = jax.random.randint(k_start, (), 0, z.shape[1] - length + 1)
        z = jax.lax.dynamic_slice_in_dim(z, start, length, axis=1)
        times = jax.random.permutation(k_times, m.context)[: m.times]
        c = jnp.asarray(gru.apply({"params": params["context"]}, z[:, : m.context], times))
        predicted = predict(params["heads"], c)
        value, accuracy = objective(predicted, z, times)
        furthest = z[:, times[0] + m.steps]
        metrics = health.of_pairs(normalize(furthest), normalize(predicted[:, 0, -1]))
        return value, ({**state, **updated}, {**metrics, "accuracy": accuracy})

    return towers.method(loss, whole=True)


def objective(predicted: jax.Array, z: jax.Array, times: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Equation 4 for W_k c_t, predicted [B, A, K, D], of z_{t+k} in z [B, S, D], t in times [A].

    Negatives: the B - 1 other records at time t + k, and the S - 1 other times of the record that
    were drawn.

    Returns:
      float32 scalars: the mean over B, A and K, and how often the positive comes first.
    """
    position = times[:, None] + 1 + jnp.arange(predicted.shape[2])
    elsewhere = position[..., None] != jnp.arange(z.shape[1])
    others = jnp.where(elsewhere, jnp.einsum("bakd,bpd->bakp", predicted, z), -jnp.inf)
    return predictive_nce(predicted, z[:, position], others)


def check(config: Config) -> int:
    """The samples of a stretch; raises a UserError, see `build`."""
    m = config.model
    if m.hidden < 1:
        raise UserError(f"--config.model.hidden={m.hidden}: the units of CPC's GRU, 1 or more")
    if m.steps < 1 or not 1 <= m.times <= m.context:
        raise UserError(
            f"CPC draws model.times={m.times} of model.context={m.context} positions to predict "
            f"model.steps={m.steps} from: set 1 <= times <= context, and steps >= 1"
        )
    samples = stretch(config)
    seconds = augment.length(config.augment, config.seconds)
    needed, there = m.context + m.steps, round(seconds * config.rate) // samples
    if there < needed:
        raise UserError(
            f"CPC reads model.context={m.context} stretches of {m.stretch:g} s and predicts "
            f"model.steps={m.steps}, and {seconds:g} s have {there}: set --config.seconds (or the "
            f"crop's) to at least {needed * samples / config.rate:g}, or fewer of them"
        )
    return samples
