"""CLOCS (Kiyasseh et al. 2021, arXiv 2005.13249): segments and leads of one patient against
those of all others. As all methods here, and unlike the released code, it has augmentations, a head
with a hidden layer and, for CMSC, all leads in a view. Where a view is one lead, evaluation shows
one lead at a time, too: the features of all stand side by side.
"""

import itertools

import jax
import jax.numpy as jnp

from ecg_jax import Config
from ecg_jax.data import augment, lead_views
from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError
from ecg_jax.losses.patient import patient_contrast
from ecg_jax.methods import Method, View
from ecg_jax.methods.shared import health
from ecg_jax.methods.shared.towers import Towers
from ecg_jax.models.heads import MLP, normalize
from ecg_jax.models.siamese import Siamese, encoder

# Segments (CMSC), leads (CMLC) or both (CMSMLC) make the views.
KINDS = {"cmsc": (True, False), "cmlc": (False, True), "cmsmlc": (True, True)}
SHORTEST = 1.0  # seconds of a segment, about a heartbeat


def over_pairs(z: jax.Array, patient: jax.Array, temperature: float) -> jax.Array:
    """Equation 1: the mean over all pairs of views of float32 z [K, V, D], of unit length."""
    pairs = itertools.combinations(range(z.shape[1]), 2)
    terms = [patient_contrast(z[:, i], z[:, j], patient, temperature) for i, j in pairs]
    return jnp.mean(jnp.stack(terms))


def build(config: Config) -> Method:
    """config.model: kind, one of `KINDS`; leads, of which leads_per_step are drawn in every step,
    and each is shown alone (the paper shows all, at an encoder pass each); temperature; hidden and
    dim of the projector; see `Towers`. All views are augmented as config.augment says.

    Raises:
      UserError: an unknown kind; segments below a second, or shorter than a crop of them; fewer
        than two leads a step or more than there are, or see `lead_views.masks`.
    """
    m = config.model
    if m.kind not in KINDS:
        raise UserError(f"--config.model.kind={m.kind}: choose one of {', '.join(KINDS)}")
    segments, single = KINDS[m.kind]
    leads = tuple(dict.fromkeys(m.leads)) if single else ()
    if segments and config.seconds / 2 < SHORTEST:
        raise UserError(
            f"{m.kind} halves records of {config.seconds:g} s, and a segment needs {SHORTEST:g} s: "
            "set --config.seconds to 2 or more"
        )
    choices, count = lead_views.masks(leads or [LEADS]), m.leads_per_step if single else 1
    if single and not 2 <= count <= len(leads):
        raise UserError(
            f"--config.model.leads_per_step={count}: {m.kind} draws 2 or more, and at most all "
            f"{len(leads)} of --config.model.leads"
        )
    network = Siamese(encoder(config), MLP((m.hidden, m.dim)))
    towers = Towers(config, network, second=False, groups=choices if single else None)
    augment.length(config.augment, config.seconds / 2 if segments else config.seconds)
    if single:
        lead_views.check_whole(config.augment)

    def views(key: jax.Array, view: View) -> jax.Array:
        """[B, V, T, 12]: every segment with every lead that is shown."""
        k_leads, k_augment = jax.random.split(key)
        x = view.ecg[:, None]
        if segments:
            x = augment.adjacent(view.ecg, rate=config.rate, least=SHORTEST)
        drawn = jax.random.choice(k_leads, jnp.asarray(choices), (count,), replace=False)
        shown = jnp.tile(drawn, (x.shape[1], 1))
        x = jnp.repeat(x, count, axis=1)
        return lead_views.show(towers.chains[0], k_augment, x, view.lead_mask, shown)

    def loss(params: dict, state: dict, view: View, key: jax.Array):
        out, updated = towers.train(params, state, views(key, view))
        z = normalize(out.projection)
        value = over_pairs(z, view.patient, m.temperature)
        return value, ({**state, **updated}, health.of_pairs(z[:, 0], z[:, 1]))

    return towers.method(loss, leads=leads, whole=bool(segments))
