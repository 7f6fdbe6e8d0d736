"""BYOL (Grill et al. 2020, arXiv 2006.07733): predict how a slow copy of the network sees the other
view; no negatives. Heads have the sizes of all methods here, and both views one augmentation."""

import jax

from ecg_jax import Config
from ecg_jax.errors import UserError
from ecg_jax.losses.cosine import swapped_cosine
from ecg_jax.methods import Method, View
from ecg_jax.methods.shared import ema
from ecg_jax.methods.shared.towers import Towers
from ecg_jax.models.heads import MLP, normalize
from ecg_jax.models.siamese import Siamese, encoder


def build(config: Config) -> Method:
    """config.model: hidden and dim of projector and predictor, momentum (tau at the start, section
    3.3); see `Towers`.

    Raises:
      UserError: a momentum outside [0, 1).
    """
    m = config.model
    if not 0 <= m.momentum < 1:
        raise UserError(f"--config.model.momentum={m.momentum}: must be in [0, 1)")
    heads = MLP((m.hidden, m.dim)), MLP((m.hidden, m.dim))
    towers = Towers(config, Siamese(encoder(config), *heads))

    def loss(params: dict, state: dict, view: View, key: jax.Array):
        x = towers.views(key, view)
        out, updated = towers.train(params, state, x)
        target = state["memory"]["target"]
        seen, _ = towers.train(target["params"], target, x)
        q, z = normalize(out.prediction), normalize(seen.projection)
        # Equation 2 for both views; of unit vectors |q - z|^2 is 2 - 2 cos.
        value = 2 * (2 - 2 * swapped_cosine(q, z))
        return value, ({**state, **updated}, towers.health(out))

    memory, after_update = ema.target(m.momentum)  # section 3.1, tau as in section 3.3
    return towers.method(loss, memory=memory, after_update=after_update)
