"""Beat-SSL (Rizqyawan et al. 2026, arXiv 2601.16147): records against records and heartbeats
against heartbeats, each wanted as near as its physiology is alike.

The paper's code is not public, and what its page does not say is ours: which numbers a record and a
beat are compared by (`data/physiology.py`), the projectors, the regions' width, the beats' classes
(clusters), the temperature. Views are 3KG's, and other augmentations may come before them.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ecg_jax import Config
from ecg_jax.data import physiology_table, three_kg
from ecg_jax.data.physiology_table import Features
from ecg_jax.errors import UserError
from ecg_jax.losses import soft_targets
from ecg_jax.methods import Method, View
from ecg_jax.methods.shared.towers import Towers, check_aligned
from ecg_jax.models import beat_regions
from ecg_jax.models.heads import MLP, normalize
from ecg_jax.models.siamese import encoder, stride
from ecg_jax.runtime import parallel

AGAINST = ("record", "batch")
MOVING = ("crop", "crop_resize", "shift", "permute")  # augmentations that move beats
# A beat counts in a view where less than this of it is erased. (Half of each lead is, by itself: at
# a half, every second beat would go.)
ERASED = 0.75


def build(config: Config) -> Method:
    """config.model: degrees, scale and erased of the views; rhythm and beat, of
    `soft_targets.KINDS`, or `none` for no beats; exponent, the sharpness of both, or positives, the
    effective number of positives to choose it for (0: by exponent); form, of `soft_targets.FORMS`;
    beats, drawn of each record in every step; beat_weight; against, the beats that a beat is held
    against: of its record or of the batch; temperature; hidden and dim of the projectors. See
    `Towers`.

    Raises:
      UserError: a value that none of these can have, or an augmentation that moves beats.
    """
    m = config.model
    _check(config)
    towers = Towers(config, beat_regions.MappedEncoder(encoder(config), MLP((m.hidden, m.dim))))
    head = MLP((m.hidden, m.dim), norm=False)  # no statistics of beats that are not there

    def init(key: jax.Array, view: View):
        k_network, k_head = jax.random.split(key)
        params, state = towers.init(k_network, view)
        width = beat_regions.PLACES * params["projector"]["Dense_0"]["kernel"].shape[0]
        if m.beat != "none":
            params = {
                **params,
                "beat_projector": head.init(k_head, jnp.zeros((1, width)))["params"],
            }
        return params, state

    def loss(params: dict, state: dict, view: View, key: jax.Array):
        B, T = view.ecg.shape[:2]
        known = view.physiology
        if known is None:  # as if no record showed anything
            known = jax.tree.map(jnp.asarray, physiology_table.blank(B, T, config.rate))
        k_views, k_beats = jax.random.split(key)
        x = _views(towers, m, k_views, view)
        out, updated = towers.train(params, state, x)
        rhythm = _rhythm(m, known, normalize(out.projection))
        metrics = towers.health(out)
        metrics |= {"rhythm": rhythm.value, "rhythm_positives": rhythm.positives}
        metrics["rhythm_excess"] = rhythm.value - rhythm.entropy
        value = rhythm.value
        if m.beat != "none":
            chosen, there = _drawn(k_beats, known.peak, x, m.beats, config.rate)
            peak = jnp.take_along_axis(known.peak, chosen, axis=1)
            maps = out.map.reshape(2 * B, *out.map.shape[2:])
            at = jnp.repeat(peak, 2, axis=0)
            regions = beat_regions.regions(maps, at, stride(config), config.rate)
            projected: Any = head.apply({"params": params["beat_projector"]}, regions)
            z = normalize(projected)
            of_beats = _beats(m, known, chosen, there, z.reshape(B, 2, *z.shape[1:]))
            value += m.beat_weight * of_beats.value
            metrics |= {"beat": of_beats.value, "beat_positives": of_beats.positives}
            metrics |= {"beat_excess": of_beats.value - of_beats.entropy}
        return value, ({**state, **updated}, metrics)

    return towers.method(loss, physiology=True)._replace(init=init)


def _check(config: Config) -> None:
    m = config.model
    three_kg.check(m.degrees, m.scale, m.erased)
    choices = {
        "rhythm": [kind for kind in soft_targets.KINDS if kind != "class"],  # records have none
        "beat": (*soft_targets.KINDS, "none"),
        "form": soft_targets.FORMS,
        "against": AGAINST,
    }
    for name, known in choices.items():
        if m[name] not in known:
            raise UserError(f"--config.model.{name}={m[name]}: choose one of {', '.join(known)}")
    if (m.positives and not m.positives >= 1) or not m.exponent > 0:
        raise UserError(
            f"--config.model.positives={m.positives}, exponent={m.exponent}: a row has one "
            "positive or more (0 takes the exponent, which is above zero)"
        )
    if m.beats < 1 or not m.beat_weight >= 0:
        raise UserError(
            f"--config.model.beats={m.beats}, beat_weight={m.beat_weight}: one beat or more, and a "
            "weight of 0 or more"
        )
    check_aligned(config)
    for step in (*config.augment, *config.augment_second):
        if step["name"] in MOVING:
            raise UserError(
                f"the augmentation {step['name']} moves beats, and {config.method} knows them by "
                "their place in the record: leave it out"
            )


def _views(towers: Towers, m: Config, key: jax.Array, view: View) -> jax.Array:
    """[B, 2, T, 12]: config.augment, then 3KG's."""
    k_chain, k_turn, k_erase = jax.random.split(key, 3)
    x = towers.views(k_chain, view)
    both = []
    for i in range(2):
        keys = jax.random.fold_in(k_turn, i), jax.random.fold_in(k_erase, i)
        turned = three_kg.turn(keys[0], x[:, i], view.lead_mask, m.degrees, m.scale)
        both.append(three_kg.erase(keys[1], turned, m.erased))
    return jnp.stack(both, axis=1)


def _targets(m: Config, kind: str, f, raw, group, valid: jax.Array) -> jax.Array:
    """[2N, 2N] of N things in two views, of which `valid` [2, N] are there."""
    if kind == "identity":
        like = jnp.full((len(f), len(f)), -jnp.inf)
    else:
        like = soft_targets.likeness(kind, f, raw, group)
    if m.positives:
        return soft_targets.calibrated(kind, like, valid, m.positives)
    return soft_targets.of_views(soft_targets.targets(kind, like, m.exponent), valid)


def _rhythm(m: Config, known: Features, z: jax.Array) -> soft_targets.Loss:
    """z [B, 2, P], against all records of the batch."""
    B = len(z)
    f, raw = parallel.whole(known.record), parallel.whole(known.record_raw)
    t = _targets(m, m.rhythm, f, raw, None, jnp.ones((2, B), bool))
    both = parallel.whole(z).swapaxes(0, 1).reshape(2 * B, -1)
    return soft_targets.contrast(both, t, m.temperature, m.form)


def _drawn(
    key: jax.Array, peak: jax.Array, x: jax.Array, most: int, rate: float
) -> tuple[jax.Array, jax.Array]:
    """Up to `most` beats of each record, int [B, most] indices into its peaks, and whether each is
    there and seen in both views, bool [2, B, most].

    Args:
      peak: int32 [B, K]; x: the views [B, 2, T, 12], erased where they are zero.
    """
    lots = jnp.where(peak >= 0, jax.random.uniform(key, peak.shape), -1.0)
    chosen = jax.lax.top_k(lots, min(most, peak.shape[1]))[1]
    at = jnp.take_along_axis(peak, chosen, axis=1)
    seen = (x != 0).mean(axis=3).cumsum(axis=2)  # [B, 2, T], of the leads, up to each sample
    seen = jnp.pad(seen, ((0, 0), (0, 0), (1, 0)))
    T = x.shape[2]
    first = jnp.clip(at - round(beat_regions.BEFORE * rate), 0, T)
    last = jnp.clip(at + round(beat_regions.AFTER * rate), 0, T)
    of = jax.vmap(lambda s, i: s[:, i])
    shown = (of(seen, last) - of(seen, first)) / jnp.maximum(last - first, 1)[:, None]
    there = (shown > 1 - ERASED) & (at >= 0)[:, None]
    return chosen, there.swapaxes(0, 1)


def _beats(
    m: Config, known: Features, chosen: jax.Array, there: jax.Array, z: jax.Array
) -> soft_targets.Loss:
    """z [B, 2, n, P] of the beats `chosen` [B, n], of which `there` [2, B, n] are seen."""
    take = jax.vmap(lambda x, i: x[i])
    f, raw, group = (take(x, chosen) for x in (known.beat, known.beat_raw, known.beat_class))
    if m.against == "batch":
        f, raw, group, z = (parallel.whole(x) for x in (f, raw, group, z))
        f, raw, group = (x.reshape(-1, *x.shape[2:]) for x in (f, raw, group))
        both = z.swapaxes(0, 1).reshape(-1, z.shape[-1])
        t = _targets(m, m.beat, f, raw, group, parallel.whole(there).reshape(2, -1))
        return soft_targets.contrast(both, t, m.temperature, m.form)

    def of_record(f, raw, group, valid, z):
        t = _targets(m, m.beat, f, raw, group, valid)
        found = soft_targets.contrast(z.reshape(-1, z.shape[-1]), t, m.temperature, m.form)
        return found, soft_targets.effective(t)[2].any()

    found, shown = jax.vmap(of_record)(f, raw, group, there.swapaxes(0, 1), z)
    count = jnp.maximum(shown.sum(), 1)  # records without a beat count nothing
    return jax.tree.map(lambda x: jnp.sum(jnp.where(shown, x, 0)) / count, found)
