"""SimCLR (Chen et al. 2020, arXiv 2002.05709): two views of a record against all other records.

The projector has BatchNorm in its hidden layer, which section 2.1 has not; the released code has
it after the last layer, too.
"""

import jax

from ecg_jax import Config
from ecg_jax.losses.contrastive import nt_xent
from ecg_jax.methods import Method, View
from ecg_jax.methods.shared import health
from ecg_jax.methods.shared.towers import Towers
from ecg_jax.models.heads import MLP, normalize
from ecg_jax.models.siamese import Siamese, encoder


def build(config: Config) -> Method:
    """config.model: hidden and dim of the projector g (section 2.1), temperature; see `Towers`."""
    m = config.model
    towers = Towers(config, Siamese(encoder(config), MLP((m.hidden, m.dim))))

    def loss(params: dict, state: dict, view: View, key: jax.Array):
        out, updated = towers.train(params, state, towers.views(key, view))
        z = normalize(out.projection)
        a, b = z[:, 0], z[:, 1]
        return nt_xent(a, b, m.temperature), ({**state, **updated}, health.of_pairs(a, b))

    return towers.method(loss)
