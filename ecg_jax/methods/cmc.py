"""CMC (Tian et al. 2020, arXiv 1906.05849): groups of leads are views of one heart, each against
those of all other records.

Of the paper it keeps the critic (equation 3) and both ways of joining more than two views. It has
one encoder for all views, in place of one each, so that it is compared as the other methods are,
and takes its negatives from the global batch, in place of a memory bank. In evaluation each group
is encoded by itself, too, and their features stand side by side, as the paper's views do (section
4.1): all leads at once are what the encoder has never seen.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from ecg_jax import Config
from ecg_jax.data import lead_views
from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError
from ecg_jax.losses.contrastive import symmetric_info_nce
from ecg_jax.methods import Method, View
from ecg_jax.methods.shared import health
from ecg_jax.methods.shared.towers import Towers
from ecg_jax.models.heads import MLP, normalize
from ecg_jax.models.siamese import Siamese, encoder


def pairs(views: int, graph: str) -> list[tuple[int, int]]:
    """The pairs that are summed over: of "core" those with the first view, of "full" all
    (section 3.3)."""
    return [p for p in itertools.combinations(range(views), 2) if graph == "full" or p[0] == 0]


def multiview(z: jax.Array, graph: str, temperature: float) -> jax.Array:
    """Section 3.3, of L(V1, V2) = L_contrast(V1, V2) + L_contrast(V2, V1).

    Args:
      z: float32 [K, V, D], of unit length: the V views of K records.

    Returns:
      float32 scalar.
    """
    terms = [
        2 * symmetric_info_nce(z[:, i], z[:, j], temperature) for i, j in pairs(z.shape[1], graph)
    ]
    return jnp.sum(jnp.stack(terms))


def build(config: Config) -> Method:
    """config.model: groups, tuples of lead names; graph; temperature; hidden and dim of the
    projector; see `Towers`. All views are augmented as config.augment says.

    Raises:
      UserError: fewer than two groups, two that are the same, or see `lead_views.masks`; an
        unknown graph.
    """
    m = config.model
    shown = lead_views.masks(m.groups)
    if len(shown) < 2:
        raise UserError("CMC compares lead groups: name two or more in --config.model.groups")
    if m.graph not in ("full", "core"):
        raise UserError(f"--config.model.graph={m.graph}: choose one of full, core")
    if len(np.unique(shown, axis=0)) < len(shown):
        raise UserError("--config.model.groups: two of them show the same leads")
    network = Siamese(encoder(config), MLP((m.hidden, m.dim)))
    towers = Towers(config, network, second=False, groups=shown)
    lead_views.check_whole(config.augment)

    def loss(params: dict, state: dict, view: View, key: jax.Array):
        ecg = jnp.repeat(view.ecg[:, None], len(shown), axis=1)
        x = lead_views.show(towers.chains[0], key, ecg, view.lead_mask, shown)
        out, updated = towers.train(params, state, x)
        z = normalize(out.projection)
        value = multiview(z, m.graph, m.temperature)
        return value, ({**state, **updated}, health.of_pairs(z[:, 0], z[:, 1]))

    needed = tuple(LEADS[i] for i in np.flatnonzero(shown.any(axis=0)))
    return towers.method(loss, leads=needed)
