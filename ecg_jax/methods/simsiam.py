"""SimSiam (Chen and He 2021, arXiv 2011.10566): predict the other view's projection, with nothing
but a stop-gradient against collapse."""

import jax

from ecg_jax import Config
from ecg_jax.errors import UserError
from ecg_jax.losses.cosine import swapped_cosine
from ecg_jax.methods import Method, View
from ecg_jax.methods.shared import health
from ecg_jax.methods.shared.towers import Towers
from ecg_jax.models.heads import MLP, normalize
from ecg_jax.models.siamese import Siamese, encoder


def build(config: Config) -> Method:
    """config.model: hidden and dim of the projector, bottleneck of the predictor (section 3,
    baseline settings); see `Towers`.

    Raises:
      UserError: no bottleneck.
    """
    m = config.model
    if m.bottleneck < 1:
        raise UserError(
            f"--config.model.bottleneck={m.bottleneck}: the predictor needs a hidden layer, "
            f"such as a quarter of model.dim, {max(m.dim // 4, 1)}"
        )
    projector = MLP((m.hidden, m.hidden, m.dim), norm_last=True)
    predictor = MLP((m.bottleneck, m.dim))
    towers = Towers(config, Siamese(encoder(config), projector, predictor))

    def loss(params: dict, state: dict, view: View, key: jax.Array):
        out, updated = towers.train(params, state, towers.views(key, view))
        p, z = normalize(out.prediction), normalize(out.projection)
        metrics = health.of_pairs(z[:, 0], z[:, 1])
        return -swapped_cosine(p, z), ({**state, **updated}, metrics)  # equation 4

    return towers.method(loss)
