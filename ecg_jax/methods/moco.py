"""MoCo v2 (He et al. 2020, arXiv 1911.05722; Chen et al. 2020, arXiv 2003.04297): find a record's
key, from a slow copy of the network, among those of earlier batches. Version 3 (Chen et al. 2021,
arXiv 2104.02057) finds it among those of its own batch, and has a predictor."""

import jax
import jax.numpy as jnp

from ecg_jax import Config
from ecg_jax.errors import UserError
from ecg_jax.losses.dictionary import queue_info_nce, swapped_info_nce
from ecg_jax.methods import Method, Plan, Rows, View
from ecg_jax.methods.shared import ema, health
from ecg_jax.methods.shared.towers import Towers
from ecg_jax.models.heads import MLP, normalize
from ecg_jax.models.siamese import Siamese, encoder


def build(config: Config) -> Method:
    """config.model: version, hidden and dim of the heads, temperature, momentum of the key encoder
    (v3: at the start); for v2 queue, the number of keys; see `Towers`.

    Raises:
      UserError: another version, a momentum outside [0, 1), or a queue that is not filled by whole
        batches, or not in a run.
    """
    m = config.model
    if m.version not in (2, 3):
        raise UserError(f"--config.model.version={m.version}: there are MoCo 2 and 3")
    if not 0 <= m.momentum < 1:
        raise UserError(f"--config.model.momentum={m.momentum}: must be in [0, 1)")
    return with_queue(config) if m.version == 2 else in_batch(config)


def with_queue(config: Config) -> Method:
    """The queue is float32 [B, slots, D], so that a record's key stays on its device: each update
    fills the slot that was filled longest ago, and `written` [slots] is which update filled each
    (-1: none). A record's own older keys, of which `rows` int32 [B, slots] tells, are no negatives:
    few records come again soon, unlike the paper's million.

    Where BatchNorm's statistics are of a part of the batch (a device's, a chunk's), keys are
    shuffled over the parts (section 3.3): else a query and its key would share statistics with each
    other and with no negative, which tells them apart from the queue without looking at the heart.
    Those of the global batch cannot be shuffled: docs/results.md says what they give away. Running
    ones in the key encoder (Cai et al. 2021, arXiv 2101.08482) lag too far behind in a short run.

    The head has BatchNorm in its hidden layer, as SimCLR's here and unlike the paper's: PIRL needs
    it (docs/results.md), and MoCo was not tried without.
    """
    m, B = config.model, config.batch_size
    slots, rest = divmod(m.queue, B)
    if slots < 1 or rest:
        raise UserError(
            f"a queue of {m.queue} keys is not filled by batches of {B}: set --config.model.queue "
            f"to a multiple of {B}"
        )
    towers = Towers(config, Siamese(encoder(config), MLP((m.hidden, m.dim))))
    in_parts = config.parallel.batch_norm == "device" or config.accumulate > 1

    def memory(params: dict, state: dict, plan: Plan) -> dict:
        if slots >= plan.steps:
            raise UserError(
                f"a queue of {m.queue} keys would first be full in update {slots + 1} of "
                f"{plan.steps}: lower --config.model.queue"
            )
        return {
            "target": ema.copy(params, state),
            "queue": jnp.zeros((B, slots, m.dim)),
            "rows": jnp.full((B, slots), -1, jnp.int32),
            "written": jnp.full(slots, -1, jnp.int32),
            "step": jnp.int32(0),
        }

    def loss(params: dict, state: dict, view: View, key: jax.Array):
        x, memory = towers.views(key, view), state["memory"]
        out, updated = towers.train(params, state, x[:, :1])
        q = normalize(out.projection[:, 0])
        target, order = memory["target"], None
        if in_parts:
            order = jax.random.permutation(jax.random.fold_in(key, 2), B)
        mixed = x[:, 1:] if order is None else x[order, 1:]
        seen, _ = towers.train(target["params"], target, mixed)
        k = jax.lax.stop_gradient(normalize(seen.projection[:, 0]))
        k = k if order is None else k[jnp.argsort(order)]
        step, written = memory["step"], memory["written"]
        filled = written >= 0
        others = memory["rows"].reshape(-1) != view.row[:, None]
        negatives = memory["queue"].reshape(-1, m.dim)
        value = queue_info_nce(q, k, negatives, jnp.tile(filled, B) & others, m.temperature)
        age = jnp.sum(jnp.where(filled, step - written, 0)) / jnp.maximum(filled.sum(), 1)
        new = {
            "target": target,
            "queue": Rows(step % slots, k, axis=1),
            "rows": Rows(step % slots, view.row, axis=1),
            "written": written.at[step % slots].set(step),
            "step": step + 1,
        }
        metrics = {**health.of_pairs(q, k), "queue_age": age}
        return value, ({**state, **updated, "memory": new}, metrics)

    def after_update(params: dict, state: dict) -> dict:
        memory = state["memory"]
        target = ema.follow(memory["target"], params, state, m.momentum)  # eq. 2
        return {**state, "memory": {**memory, "target": target}}

    return towers.method(loss, memory=memory, rows=("queue", "rows"), after_update=after_update)


def in_batch(config: Config) -> Method:
    """Heads as for the paper's ResNet: BatchNorm at the projector's end, and a predictor; m goes
    from `momentum` to 1."""
    m = config.model
    projector, predictor = MLP((m.hidden, m.dim), norm_last=True), MLP((m.hidden, m.dim))
    towers = Towers(config, Siamese(encoder(config), projector, predictor))

    def loss(params: dict, state: dict, view: View, key: jax.Array):
        x, target = towers.views(key, view), state["memory"]["target"]
        out, updated = towers.train(params, state, x)
        seen, _ = towers.train(target["params"], target, x)
        q, k = normalize(out.prediction), jax.lax.stop_gradient(normalize(seen.projection))
        value = swapped_info_nce(q, k, m.temperature)
        return value, ({**state, **updated}, towers.health(out))

    memory, after_update = ema.target(m.momentum)
    return towers.method(loss, memory=memory, after_update=after_update)
