"""PIRL (Misra and van der Maaten 2020, arXiv 1912.01991): a record and its shuffled pieces agree
with what a memory bank holds of the record, and not with what it holds of others."""

import jax
import jax.numpy as jnp

from ecg_jax import Config
from ecg_jax.data import augment
from ecg_jax.data.augment import jigsaw
from ecg_jax.errors import UserError
from ecg_jax.losses.nce import memory_nce
from ecg_jax.methods import Method, Plan, Rows, View
from ecg_jax.methods.shared import health
from ecg_jax.methods.shared.towers import Towers
from ecg_jax.models.heads import MLP, normalize
from ecg_jax.models.puzzle import Puzzle
from ecg_jax.models.siamese import Siamese, encoder

SHORTEST = 1.0  # seconds of a piece, about a heartbeat
GAP = 0.1  # share of a piece that is cut away


def draw_negatives(
    key: jax.Array, row: jax.Array, records: jax.Array, length: int, count: int
) -> jax.Array:
    """int32 [B, count]: `count` different rows below `records` for each row [B], never itself.

    Every record's are the same steps further on in the bank, of `length` rows, round its end.
    """
    steps = jnp.arange(length)
    weight = jax.random.uniform(key, (length,))
    allowed = jnp.where((steps > 0) & (steps < records), weight, -1)
    return (row[:, None] + jax.lax.top_k(allowed, count)[1]) % records


def remember(own: jax.Array, row: jax.Array, f: jax.Array, momentum: float) -> Rows:
    """Section 2.2: m_I, unit vectors, are running means of f(v_I); `own` are those of `row`."""
    mean = momentum * own + (1 - momentum) * jax.lax.stop_gradient(f)
    return Rows(row, normalize(mean))


def build(config: Config) -> Method:
    """config.model: pieces; negatives; jigsaw_weight (lambda); bank_momentum; temperature; hidden
    (0: the head f is linear, as in section 2.3) and dim; see `Towers`.

    Raises:
      UserError: fewer than two pieces, pieces below a second, a momentum outside [0, 1), or a
        weight outside [0, 1].
    """
    m = config.model
    seconds = augment.length(config.augment, config.seconds)
    if m.pieces < 2 or (1 - GAP) * seconds / m.pieces < SHORTEST:
        raise UserError(
            f"--config.model.pieces={m.pieces}: records of {seconds:g} s are cut into at "
            f"least 2 pieces of at least {SHORTEST:g} s, without the {GAP:.0%} of each that is lost"
        )
    if not 0 <= m.bank_momentum < 1:
        raise UserError(f"--config.model.bank_momentum={m.bank_momentum}: must be in [0, 1)")
    if not 0 <= m.jigsaw_weight <= 1:
        raise UserError(f"--config.model.jigsaw_weight={m.jigsaw_weight}: must be in [0, 1]")
    head = MLP((m.hidden, m.dim)) if m.hidden else MLP((m.dim,))
    towers = Towers(config, Siamese(encoder(config), head))
    puzzles = Towers(config, Puzzle(encoder(config), MLP((m.dim,)), MLP((m.dim,))))

    def init(key: jax.Array, view: View) -> tuple[dict, dict]:
        k_puzzle, k_whole = jax.random.split(key)
        cut = view._replace(ecg=jigsaw(key, view.ecg, m.pieces, GAP))
        heads, _ = puzzles.init(k_puzzle, cut)
        params, state = towers.init(k_whole, view)
        return {**heads, **params}, state  # one encoder for both

    def memory(params: dict, state: dict, plan: Plan) -> dict:
        if not 0 < m.negatives < plan.records:
            raise UserError(
                f"--config.model.negatives={m.negatives}: with {plan.records:,} training records "
                f"choose 1 to {plan.records - 1:,}"
            )
        rows = -(-plan.records // config.shards) * config.shards  # the devices divide it
        bank = jax.random.normal(jax.random.key(config.seed + 2), (rows, m.dim))
        return {"bank": normalize(bank), "records": jnp.int32(plan.records)}

    def loss(params: dict, state: dict, view: View, key: jax.Array):
        k_views, k_cut, k_negatives = jax.random.split(key, 3)
        x = towers.views(k_views, view)
        out, updated = towers.train(params, state, x[:, :1])
        # Pieces only lend BatchNorm their own batch's statistics: what is kept is of whole records.
        pieces = jigsaw(k_cut, x[:, 1], m.pieces, GAP)
        puzzle, _ = puzzles.train(params, state, pieces[:, None])
        f, g = normalize(out.projection[:, 0]), normalize(puzzle[:, 0])

        bank, records = state["memory"]["bank"], state["memory"]["records"]
        rows = draw_negatives(k_negatives, view.row, records, len(bank), m.negatives)
        own, others = bank[view.row], bank[rows]
        of_pieces = memory_nce(g, own, others, m.temperature)
        of_whole = memory_nce(f, own, others, m.temperature)
        value = m.jigsaw_weight * of_pieces + (1 - m.jigsaw_weight) * of_whole  # equation 5
        memory = {"bank": remember(own, view.row, f, m.bank_momentum), "records": records}
        metrics = {**health.of_pairs(f, g), "bank_cosine": jnp.sum(own * f, axis=-1).mean()}
        return value, ({**state, **updated, "memory": memory}, metrics)

    return towers.method(loss, memory=memory, rows=("bank",), whole=True)._replace(init=init)
