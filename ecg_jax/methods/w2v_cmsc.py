"""wav2vec 2.0, CMSC and random lead masking (Oh et al. 2022, CHIL, arXiv 2203.06889): tell hidden
tokens of a segment from each other, and adjacent segments of a patient from those of all others.

Both segments of a record go through one masked pass, each with the leads that the augmentation
`lead_mask` leaves it (random lead masking: probability .5, but never all, which in the released
code happens to one segment in 4,096). Records are shown to the encoder as it was trained, segment
by segment; a record's features are their mean. Departures from the released code, which can be set
back but for the last two: positives are of one patient, not of one record (`contrast`); segments
meet all of the batch, not 64 (`group`); the number of hidden tokens is fixed (`masked`); batches
are drawn anew in every epoch, and weight decay spares biases and scales.
"""

import jax
import jax.numpy as jnp

from ecg_jax import Config
from ecg_jax.data import augment, lead_views
from ecg_jax.errors import UserError
from ecg_jax.losses.masked_nce import adjacent_segments, diversity, masked_nce
from ecg_jax.methods import Method, View
from ecg_jax.methods.shared import health
from ecg_jax.methods.shared.towers import Towers
from ecg_jax.models import span_mask
from ecg_jax.models.heads import normalize
from ecg_jax.models.masked import Masked, Segmented
from ecg_jax.models.siamese import encoder, positions

KINDS = {"w2v_cmsc": (True, True), "w2v": (True, False), "cmsc": (False, True)}  # local, global
CONTRASTS = ("corrected", "code", "paper")
NEGATIVES = 100
SHORTEST = 1.0  # seconds of a segment


def build(config: Config) -> Method:
    """config.model: kind, one of `KINDS`; contrast and group, see `adjacent_segments`; masked, the
    share of a segment's tokens that is hidden; leads, which are shown in training and after it, all
    others being zero (to the first convolution the same as not there); diversity and penalty,
    weights of the two terms beside the local loss; see `Towers` and `siamese.encoder`.

    Raises:
      UserError: an unknown kind or contrast; hidden tokens of an encoder that has none, or too few
        of them; groups that do not divide the batch; a weight or rate out of range.
    """
    m = config.model
    check(config)
    local, contrast = KINDS[m.kind]
    seconds = augment.length(config.augment, config.seconds / 2)
    samples = round(seconds * config.rate)
    network = (
        Masked(encoder(config), samples, hidden(config, samples))
        if local
        else Segmented(encoder(config), samples)
    )
    shown = lead_views.masks([m.leads])
    towers = Towers(config, network, second=False, groups=None if shown.all() else shown)

    def views(key: jax.Array, view: View) -> jax.Array:
        """[B, 2, T, 12]: both halves of every record, augmented each by itself."""
        x = augment.adjacent(view.ecg, rate=config.rate, least=SHORTEST)
        B = len(x)
        flat = x.reshape(2 * B, *x.shape[2:])
        there = jnp.repeat(view.lead_mask & shown[0], 2, axis=0)
        flat = jnp.where(there[:, None], flat, 0)
        flat, _ = towers.chains[0](key, flat, there)
        return flat.reshape(B, 2, *flat.shape[1:])

    def loss(params: dict, state: dict, view: View, key: jax.Array):
        k_views, k_others = jax.random.split(key)
        x = views(k_views, view)
        out, updated = towers.train(params, state, x, "hide" if local else None)
        z, value, terms = out.features, jnp.float32(0), {}
        if local:
            rows = 2 * len(x)
            c, q, codes = (
                y.reshape(rows, *y.shape[2:]) for y in (out.context, out.target, out.codes)
            )
            others = span_mask.others(k_others, rows, c.shape[1], NEGATIVES)
            terms["local"], terms["accuracy"] = masked_nce(c, q, codes, others)
            terms["diversity"], terms["penalty"] = diversity(out.logits), out.penalty.mean()
            value += terms["local"] + m.diversity * terms["diversity"]
            value += m.penalty * terms["penalty"]
            terms["gumbel_temperature"] = out.tau.mean()
        if contrast:
            same = view.patient if m.contrast == "corrected" else view.row
            a, b = z[:, 0], z[:, 1]
            terms["global"] = adjacent_segments(a, b, same, m.contrast, m.group)
            value += terms["global"]
        unit = normalize(z)
        metrics = health.of_pairs(unit[:, 0], unit[:, 1]) | terms
        return value, ({**state, **updated}, metrics)

    return towers.method(loss, whole=True)


def check(config: Config) -> None:
    """Raises a UserError: see `build`."""
    m = config.model
    for name, known in (("kind", KINDS), ("contrast", CONTRASTS)):
        if m[name] not in known:
            raise UserError(f"--config.model.{name}={m[name]}: choose one of {', '.join(known)}")
    if config.seconds / 2 < SHORTEST:
        raise UserError(
            f"w2v_cmsc halves records of {config.seconds:g} s, and a segment needs {SHORTEST:g} s: "
            "set --config.seconds to 2 or more"
        )
    if KINDS[m.kind][0] and m.encoder != "wav2vec2":
        raise UserError(
            f"--config.model.kind={m.kind} hides tokens, and {m.encoder} has none: choose "
            "--config.model.encoder=wav2vec2, or kind=cmsc"
        )
    if m.group and (m.group < 2 or config.batch_size % m.group):
        raise UserError(
            f"--config.model.group={m.group}: 0, or 2 or more records that divide a batch of "
            f"{config.batch_size}"
        )
    for name in ("diversity", "penalty", "conv_gradient", "token"):
        if m[name] < 0:
            raise UserError(f"--config.model.{name}={m[name]}: must not be negative")
    for name in ("dropout", "attention_dropout"):
        if not 0 <= m[name] < 1:
            raise UserError(f"--config.model.{name}={m[name]}: must be in [0, 1)")
    if m.extractor not in ("group", "layer"):
        raise UserError(f"--config.model.extractor={m.extractor}: choose one of group, layer")


def hidden(config: Config, samples: int) -> int:
    """M, how many of a segment's tokens are hidden.

    Raises:
      UserError: fewer than 2, or more than there are, or no room for two spans.
    """
    P = positions(config, samples)
    count = round(config.model.masked * P)
    if P < 2 * span_mask.SPAN or not 2 <= count < P:
        raise UserError(
            f"--config.model.masked={config.model.masked} hides {count} of {P} tokens in a segment "
            f"of {samples / config.rate:g} s: {2 * span_mask.SPAN} tokens or more are needed, and "
            "from 2 to all but one of them can be hidden"
        )
    return count
