"""BYOL (Grill et al. 2020, arXiv 2006.07733): predict how a slow copy of the network sees the other
view; no negatives."""

import jax
import jax.numpy as jnp

from ecg_jax import ema
from ecg_jax.config import Config
from ecg_jax.errors import UserError
from ecg_jax.losses.prediction import swapped_cosine
from ecg_jax.methods import Method, Plan, View
from ecg_jax.models.heads import MLP, normalize
from ecg_jax.models.siamese import Siamese, encoder
from ecg_jax.towers import Towers


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

    def memory(params: dict, state: dict, plan: Plan) -> dict:
        target = ema.copy(params, state)
        return {"target": target, "step": jnp.int32(0), "steps": jnp.int32(plan.steps)}

    def loss(params: dict, state: dict, view: View, key: jax.Array):
        x = towers.views(key, view)
        out, updated = towers.train(params, state, x)
        target = state["memory"]["target"]
        seen, _ = towers.train(target["params"], target, x)
        q, z = normalize(out.prediction), normalize(seen.projection)
        # Equation 2 for both views; of unit vectors |q - z|^2 is 2 - 2 cos.
        value = 2 * (2 - 2 * swapped_cosine(q, z))
        return value, ({**state, **updated}, towers.health(out))

    def after_update(params: dict, state: dict) -> dict:
        """Section 3.1: xi <- tau xi + (1 - tau) theta, of parameters and BatchNorm statistics
        alike, with tau from `momentum` to 1 along a cosine."""
        memory = state["memory"]
        tau = ema.rising(m.momentum, memory["step"], memory["steps"])
        target = ema.follow(memory["target"], params, state, tau)
        return {**state, "memory": {**memory, "target": target, "step": memory["step"] + 1}}

    return towers.method(loss, memory=memory, after_update=after_update)
