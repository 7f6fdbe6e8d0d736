"""ASTCL (Wang et al. 2024, IEEE TNNLS 35(10), doi 10.1109/TNNLS.2023.3272153): predict a patient's
other view and its next seconds, and hide from a discriminator which view it is.

After the paper's abstract: noise-enhanced and denoised views; a discriminator plays against the
encoder; prediction in space and time, and patient discrimination, with positives of one patient
only, a predictor and stop-gradient. Formulas, filters and figures below are this project's. As the
encoder's positions see 2 s around them at 100 Hz, neighbouring segments share samples.
"""

import jax
import jax.numpy as jnp
import optax

from ecg_jax import Config
from ecg_jax.errors import UserError
from ecg_jax.losses.cosine import swapped_cosine
from ecg_jax.methods import Method, View
from ecg_jax.methods.shared import health
from ecg_jax.methods.shared.towers import Towers, check_aligned
from ecg_jax.models.heads import MLP, normalize
from ecg_jax.models.siamese import encoder, positions
from ecg_jax.models.spatiotemporal import Spatiotemporal


def build(config: Config) -> Method:
    """config.model: hidden and dim of the heads; segments, of a record; temporal, the weight of
    their prediction; adversarial, of the discriminator's reversed gradient. config.augment adds
    noise to the first view, config.augment_second is of the denoised one; see also `Towers`.

    Raises:
      UserError: fewer than two segments, more than the encoder's map has positions, a negative
        weight, or views cut elsewhere each.
    """
    m, P = config.model, positions(config, round(config.seconds * config.rate))
    if not 2 <= m.segments <= P:
        raise UserError(
            f"--config.model.segments={m.segments}: choose 2 to {P}; the encoder tells "
            f"apart {P} positions in {config.seconds:g} s at {config.rate} Hz"
        )
    for name in ("temporal", "adversarial"):
        if m[name] < 0:
            raise UserError(f"--config.model.{name}={m[name]}: must not be negative")
    narrow = (m.dim // 4, m.dim)  # SimSiam's bottleneck
    heads = MLP((m.hidden, m.dim), norm_last=True), MLP(narrow), MLP(narrow)
    judge = MLP((m.dim, 1), norm=False)
    network = Spatiotemporal(encoder(config), *heads, judge, m.segments, m.adversarial)
    towers = Towers(config, network)
    check_aligned(config)
    noisy, quiet = towers.chains

    def views(key: jax.Array, view: View) -> jax.Array:
        (k_noisy, k_quiet), clean = jax.random.split(key), denoise(view.ecg, config.rate)
        a, _ = noisy(k_noisy, view.ecg, view.lead_mask)
        b, _ = quiet(k_quiet, clean, view.lead_mask)
        return jnp.stack([a, b], axis=1)

    def loss(params: dict, state: dict, view: View, key: jax.Array):
        out, updated = towers.train(params, state, views(key, view))
        z = normalize(out.projection)
        across_patient = discrimination(normalize(out.prediction), z, view.patient)
        across_time = prediction(normalize(out.forecast), normalize(out.parts))
        judged = game(out.logit)
        value = across_patient + m.temporal * across_time + judged
        told = jnp.mean((out.logit > 0) == jnp.array([False, True]))
        terms = {"across_patient": across_patient, "across_time": across_time, "game": judged}
        metrics = health.of_pairs(z[:, 0], z[:, 1]) | terms | {"view_accuracy": told}
        return value, ({**state, **updated}, metrics)

    return towers.method(loss, whole=True)


def denoise(ecg: jax.Array, rate: int) -> jax.Array:
    """[B, T, 12] without what is quick and what is slow: the fit of a parabola over 50 ms (Savitzky
    and Golay 1964), which keeps the waves' height, less the mean of the second around. A lead of
    zeros stays so. (An FFT would gather the batch of all devices on each.)"""
    from scipy.signal import savgol_coeffs  # slow to import

    T, half = ecg.shape[1], max(2, rate // 40)
    padded = jnp.pad(ecg, ((0, 0), (half, half), (0, 0)), mode="edge")
    smooth = jnp.zeros_like(ecg)
    for i, weight in enumerate(savgol_coeffs(2 * half + 1, 2)):
        smooth += float(weight) * padded[:, i : i + T]
    sums = jnp.pad(jnp.cumsum(ecg, axis=1), ((0, 0), (1, 0), (0, 0)))
    t = jnp.arange(T)
    start, end = jnp.maximum(t - rate // 2, 0), jnp.minimum(t + rate // 2 + 1, T)
    return smooth - (sums[:, end] - sums[:, start]) / (end - start)[:, None]


def discrimination(q: jax.Array, z: jax.Array, patient: jax.Array) -> jax.Array:
    """Squared distance of each prediction q [B, 2, P] from the other views z [B, 2, P] of the
    patient's records, its own and those with it in the batch; q and z have unit length."""
    same = (patient[:, None] == patient[None, :]).astype(z.dtype)
    target = jnp.einsum("ij,jvp->ivp", same / same.sum(axis=1, keepdims=True), z)
    return 2 - 2 * swapped_cosine(q, target)


def prediction(forecast: jax.Array, parts: jax.Array) -> jax.Array:
    """In time, from segment s of one view to s + 1 of the other; in space too, where `lead_mask`
    takes other leads from each: forecast [B, 2, S - 1, P], parts [B, 2, S, P], of unit length."""
    return 2 - 2 * swapped_cosine(forecast, parts[:, :, 1:])


def game(logit: jax.Array) -> jax.Array:
    """Cross-entropy of the discriminator's logit [B, 2]: view 0 has more noise, view 1 less. The
    encoder plays against it, see `spatiotemporal.reverse`."""
    view = jnp.broadcast_to(jnp.array([0.0, 1.0]), logit.shape)
    return optax.sigmoid_binary_cross_entropy(logit, view).mean()
