"""SwAV (Caron et al. 2020, arXiv 2006.09882): a view predicts which prototypes the other view of
its record is assigned to. Two full views, without the paper's multi-crop."""

import math

import jax
import jax.numpy as jnp

from ecg_jax import Config
from ecg_jax.errors import UserError
from ecg_jax.losses.assignment import sinkhorn, swapped_prediction
from ecg_jax.methods import Method, Plan, Rows, View
from ecg_jax.methods.shared import health
from ecg_jax.methods.shared.towers import Towers
from ecg_jax.models.heads import MLP, normalize
from ecg_jax.models.siamese import Siamese, encoder


def build(config: Config) -> Method:
    """config.model: hidden and dim of the projector, temperature, prototypes, epsilon, and freeze,
    the epochs before the prototypes learn; queue, the number of earlier records that are assigned
    along with a batch, from the share queue_from of the run on (until then the batch alone is
    shared out, as in the paper, however few it is); see `Towers`.

    Prototypes are parameters of any length, brought to unit length where they are used: frozen,
    they have no gradient, and AdamW's decay shortens them without turning them.

    Raises:
      UserError: see `check`.
    """
    m, B = config.model, config.batch_size
    check(config)
    slots = m.queue // B
    towers = Towers(config, Siamese(encoder(config), MLP((m.hidden, m.dim))))

    def init(key: jax.Array, view: View) -> tuple[dict, dict]:
        k_towers, k_prototypes = jax.random.split(key)
        params, state = towers.init(k_towers, view)
        prototypes = normalize(jax.random.normal(k_prototypes, (m.prototypes, m.dim)))
        return {**params, "prototypes": prototypes}, state

    def memory(params: dict, state: dict, plan: Plan) -> dict:
        """The queue is float32 [B, slots, 2, D], so that a record's embeddings stay on its
        device; it is used once it is full.

        Raises:
          UserError: that is never.
        """
        freeze = m.freeze * plan.steps // config.epochs
        counters = {"step": jnp.int32(0), "freeze": jnp.int32(freeze)}
        if not slots:
            return counters
        start = max(math.ceil(m.queue_from * plan.steps), slots)
        if start >= plan.steps:
            raise UserError(
                f"a queue of {m.queue} would first be used in update {start + 1} of "
                f"{plan.steps}: lower --config.model.queue or queue_from"
            )
        queue = jnp.zeros((B, slots, 2, m.dim))
        return {**counters, "queue": queue, "queue_from": jnp.int32(start)}

    def codes(memory: dict, scores: jax.Array, prototypes: jax.Array) -> jax.Array:
        """[B, 2, P] of scores [B, 2, P]; each view is assigned for itself."""
        counted = jnp.ones(B, bool)
        if slots:
            earlier = memory["queue"].reshape(-1, 2, m.dim) @ prototypes.T
            scores = jnp.concatenate([scores, earlier])
            used = memory["step"] >= memory["queue_from"]
            counted = jnp.concatenate([counted, jnp.full(B * slots, used)])
        return jnp.stack(
            [sinkhorn(scores[:, v], m.epsilon, counted=counted)[:B] for v in (0, 1)], axis=1
        )

    def loss(params: dict, state: dict, view: View, key: jax.Array):
        out, updated = towers.train(params, state, towers.views(key, view))
        z, memory = normalize(out.projection), state["memory"]
        c = normalize(params["prototypes"])
        c = jnp.where(memory["step"] < memory["freeze"], jax.lax.stop_gradient(c), c)
        scores = z @ c.T
        value = swapped_prediction(scores, codes(memory, scores, c), m.temperature)
        new = {**memory, "step": memory["step"] + 1}
        if slots:
            slot = memory["step"] % slots  # filled longest ago
            new["queue"] = Rows(slot, jax.lax.stop_gradient(z), axis=1)
        nearest = scores == scores.max(axis=-1, keepdims=True)
        metrics = {
            **health.of_pairs(z[:, 0], z[:, 1]),
            "prototypes_used": nearest.any(axis=(0, 1)).mean(),  # share that are a view's nearest
        }
        if slots:  # updates since a slot was filled, the mean over those that are
            filled = jnp.minimum(memory["step"], slots)
            metrics["queue_age"] = jnp.where(filled > 0, (filled + 1) / 2, 0)
        return value, ({**state, **updated, "memory": new}, metrics)

    rows = ("queue",) if slots else ()
    return towers.method(loss, memory=memory, rows=rows)._replace(init=init)


def check(config: Config) -> None:
    """Raises a UserError for fewer records than prototypes to share out, a queue that is not filled
    by whole batches, or a value out of its range."""
    m, B = config.model, config.batch_size
    ranges = {
        "prototypes": (m.prototypes > 0, "must be above zero"),
        "epsilon": (m.epsilon > 0, "must be above zero"),
        "freeze": (0 <= m.freeze < config.epochs, f"must be in [0, {config.epochs}), the epochs"),
        "queue": (m.queue >= 0 and m.queue % B == 0, f"must be 0 or a multiple of the batch, {B}"),
        "queue_from": (0 <= m.queue_from < 1, "must be in [0, 1)"),
    }
    for name, (right, rule) in ranges.items():
        if not right:
            raise UserError(f"--config.model.{name}={m[name]}: {rule}")
    if B + m.queue < m.prototypes:
        raise UserError(
            f"a batch of {B} and a queue of {m.queue} are too few for {m.prototypes} prototypes, "
            "which share them out evenly: lower --config.model.prototypes, or raise batch_size or "
            "model.queue"
        )
