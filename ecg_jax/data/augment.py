"""Augmentations: jitted, batched, drawn anew for every record and step.

Each takes a key and ecg float [B, T, 12] with lead_mask bool [B, 12] and returns both: the ECG in
its dtype, leads that are not there zero. `jigsaw` and `adjacent` cut records into several and stand
by themselves; `noise` holds those that disturb. docs/augmentations.md shows all.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ecg_jax.data.bounds import whole, within
from ecg_jax.data.noise import Augmentation, frequency_mask, hum, jitter, muscle, wander
from ecg_jax.data.vcg import EIGHT, LEADS_FROM_VCG, VCG_FROM_LEADS, rotations
from ecg_jax.errors import UserError

STRETCH = 5.0  # seconds that `crop` leaves, of longer records, if nothing else is said


def scale(low: float = 0.8, high: float = 1.25) -> Augmentation:
    """One gain for the whole record: morphology and rhythm stay, absolute voltage does not."""
    if not 0 < low <= high < math.inf:
        raise UserError(f"gains must be above zero with low <= high, not from {low} to {high}")

    def apply(key, ecg, mask):
        gain = jax.random.uniform(key, (ecg.shape[0], 1, 1), ecg.dtype, jnp.log(low), jnp.log(high))
        return ecg * jnp.exp(gain), mask

    return apply


def invert(probability: float = 0.5) -> Augmentation:
    """Turns the whole record upside down with `probability`. Rhythm, intervals and the ratios
    between leads stay; axis, R and S, and the sign of ST and T do not."""
    within("probability", probability, 0, 1)

    def apply(key, ecg, mask):
        turned = jax.random.bernoulli(key, probability, (ecg.shape[0], 1, 1))
        return jnp.where(turned, -ecg, ecg), mask

    return apply


def shift(fraction: float = 0.2) -> Augmentation:
    """Starts the record up to `fraction` of its length later and fills up with zeros.

    Rhythm and morphology stay; which beats are seen changes.
    """
    within("fraction", fraction, 0, 1)

    def apply(key, ecg, mask):
        T = ecg.shape[1]
        most = int(fraction * T)
        offset = jax.random.randint(key, (ecg.shape[0],), 0, most + 1)
        padded = jnp.pad(ecg, ((0, 0), (0, most), (0, 0)))
        cut = jax.vmap(lambda x, i: jax.lax.dynamic_slice_in_dim(x, i, T))
        return cut(padded, offset), mask

    return apply


def crop(seconds: float | None = None, *, rate: int) -> Augmentation:
    """Cuts a stretch of `seconds` out of the record, anywhere in it, and does not resize it:
    [B, T, 12] to [B, seconds * rate, 12], and a step costs as much less. It is a chain's first.
    Where `seconds` is not said, it is 5, or the whole of a shorter record.

    Rhythm and waves within the stretch stay; what happens outside it is not seen. Of a record that
    ends before T, as those padded with zeros do, the stretch is cut before its end, if it is as
    long as that.
    """
    if seconds is not None:
        within("seconds", seconds, 1)  # about a heartbeat

    def apply(key, ecg, mask):
        B, T, _ = ecg.shape
        width = round(_cut(seconds, T / rate) * rate)
        end = T - jnp.argmax((ecg != 0).any(axis=2)[:, ::-1], axis=1)
        start = jax.random.randint(key, (B,), 0, jnp.maximum(end - width, 0) + 1)
        cut = jax.vmap(lambda x, i: jax.lax.dynamic_slice_in_dim(x, i, width))
        return cut(ecg, start), mask

    return apply


def crop_resize(least: float = 0.8) -> Augmentation:
    """Crops a stretch of at least `least` of the record, anywhere in it, and stretches it to the
    full length by linear interpolation.

    The order of waves and their voltages stay. The rate changes: the heart seems to beat slower,
    and PR, QRS and QT seem longer, by up to 1 / `least`. Keep `least` near 1 where labels are read
    from them.
    """
    within("least", least, 0.1, 1)  # a tenth of 10 s still shows a beat

    def apply(key, ecg, mask):
        B, T, _ = ecg.shape
        size, place = jax.random.split(key)
        width = jax.random.uniform(size, (B, 1), minval=least, maxval=1) * (T - 1)
        start = jax.random.uniform(place, (B, 1)) * (T - 1 - width)
        position = start + width * jnp.linspace(0, 1, T)
        before = jnp.clip(position.astype(jnp.int32), 0, T - 2)
        share = (position - before)[:, :, None].astype(ecg.dtype)
        return (1 - share) * _at(ecg, before) + share * _at(ecg, before + 1), mask

    return apply


def time_mask(fraction: float = 0.2) -> Augmentation:
    """Zeroes one stretch of up to `fraction` of the record in all leads. Beats outside it stay as
    they are, at their times; those inside are lost."""
    within("fraction", fraction, 0, 1)

    def apply(key, ecg, mask):
        B, T, _ = ecg.shape
        start, width = jax.random.split(key)
        width = jax.random.uniform(width, (B, 1), minval=0, maxval=fraction * T)
        start = jax.random.uniform(start, (B, 1)) * (T - width)
        t = jnp.arange(T)
        hidden = (t >= start) & (t < start + width)
        return jnp.where(hidden[:, :, None], 0, ecg), mask

    return apply


def lead_mask(probability: float = 0.1) -> Augmentation:
    """Drops each lead with `probability` (random lead masking). Rhythm and the waves of the other
    leads stay; the record is seen from fewer directions, but never from none: one lead is left, at
    random, where all are drawn."""
    within("probability", probability, 0, 1)

    def apply(key, ecg, mask):
        u = jnp.where(mask, jax.random.uniform(key, mask.shape), jnp.inf)
        keep = ((u < 1 - probability) | (u == u.min(axis=1, keepdims=True))) & mask
        return jnp.where(keep[:, None, :], ecg, 0), keep

    return apply


def permute(pieces: int = 5) -> Augmentation:
    """Cuts the record at random places into `pieces` of random length and puts these into a random
    order, the same in all leads (TS-TCC's strong view, Eldele et al. 2021, section 3.1).

    Beats within a piece stay, in all leads at once; rhythm across the cuts does not, and a cut may
    fall into a beat.
    """
    whole("pieces", pieces, 2)

    def apply(key, ecg, mask):
        B, T, _ = ecg.shape
        cuts, order = jax.random.split(key)
        cuts = jnp.sort(jax.random.randint(cuts, (B, pieces - 1), 0, T + 1), axis=1)
        edges = jnp.pad(jnp.pad(cuts, ((0, 0), (1, 0))), ((0, 0), (0, 1)), constant_values=T)
        order = _orders(order, B, pieces)
        start = jnp.take_along_axis(edges[:, :-1], order, axis=1)
        length = jnp.take_along_axis(jnp.diff(edges, axis=1), order, axis=1)
        end = jnp.cumsum(length, axis=1)  # of the pieces, in the new record
        t = jnp.arange(T)
        piece = (t[:, None] >= end[:, None, :]).sum(axis=2)
        moved = jnp.take_along_axis(start + length - end, piece, axis=1)
        return _at(ecg, t + moved), mask

    return apply


def vcg(degrees: float = 45.0, scale: float = 1.5) -> Augmentation:
    """Turns the heart's vector by up to `degrees` about a random axis, then stretches it along
    each of Frank's X, Y and Z by a factor between 1 / `scale` and `scale` (angle and logarithm of
    the factor uniform), as if the heart lay otherwise in the chest.

    Rhythm, intervals and the timing of waves stay; the electrical axis, R wave progression and
    voltages do not. The leads' change is that of Dower's leads (see `vcg`), and those of III and
    the augmented leads follow from I and II, so Einthoven's and Goldberger's identities hold as
    they did before. What no vector explains (noise, the near field of chest electrodes) is kept as
    it is: with 0 degrees and a scale of 1 nothing changes. The leads must share one unit, so
    records must not be normalised lead by lead.

    Records that lack one of I, II, V1-V6 have no such vector and stay unchanged: put `vcg` before
    `lead_mask`.
    """
    within("degrees", degrees, 0, 180)
    within("scale", scale, 1)
    from_leads, to_leads = VCG_FROM_LEADS.T.astype("float32"), LEADS_FROM_VCG.T.astype("float32")

    def apply(key, ecg, mask):
        B = ecg.shape[0]
        turn, stretch = jax.random.split(key)
        log = jnp.log(scale)
        gain = jnp.exp(jax.random.uniform(stretch, (B, 1, 3), minval=-log, maxval=log))
        moved = rotations(turn, B, jnp.deg2rad(degrees)) * gain - jnp.eye(3)
        matrix = jnp.einsum("cx,bxy,yd->bcd", from_leads, moved, to_leads, precision="highest")
        change = jnp.matmul(ecg, matrix.astype(ecg.dtype), precision="highest")
        has_vector = mask[:, EIGHT].all(axis=1)[:, None]
        return jnp.where((mask & has_vector)[:, None, :], ecg + change, ecg), mask

    return apply


def jigsaw(key: jax.Array, ecg: jax.Array, pieces: int, gap: float = 0.1) -> jax.Array:
    """A jigsaw of a record's time (PIRL, Misra and van der Maaten 2020, section 2.3).

    The record is cut into `pieces` equal segments, of each a stretch of 1 - `gap` of its length is
    kept, at a random place, so that edges do not fit together, and these come in random order, the
    same in all leads. Beats and leads stay; rhythm and order are lost.

    Args:
      ecg: [B, T, 12].

    Returns:
      [B, pieces, T', 12] with T' = n - floor(gap n), n = floor(T / pieces).

    Raises:
      UserError: fewer than 2 pieces, more than there are samples, or a gap outside [0, 1).
    """
    whole("pieces", pieces, 2)
    within("gap", gap, 0, 1)
    B, T, _ = ecg.shape
    segment = T // pieces
    length = segment - int(gap * segment)
    if length < 1:
        raise UserError(f"{T} samples cannot be cut into {pieces} pieces with gaps of {gap}")
    place, order = jax.random.split(key)
    start = jax.random.randint(place, (B, pieces), 0, segment - length + 1)
    start += segment * jnp.arange(pieces)
    start = jnp.take_along_axis(start, _orders(order, B, pieces), axis=1)
    return _at(ecg, start[:, :, None] + jnp.arange(length))


def adjacent(ecg: jax.Array, parts: int = 2, *, rate: int, least: float = 2.0) -> jax.Array:
    """Adjacent segments of each record, in their order: CLOCS's positives in time (CMSC, Kiyasseh
    et al. 2021). One patient, one electrode placement and mostly one rhythm, other
    beats.

    Args:
      ecg: [B, T, 12] at `rate` Hz.
      least: seconds that a segment must last; below 2 s a slow rhythm shows no RR interval.

    Returns:
      [B, parts, floor(T / parts), 12]; samples that are left over at the end are dropped.

    Raises:
      UserError: a segment would be shorter than `least`, or fewer than 2 parts.
    """
    whole("parts", parts, 2)
    B, T, C = ecg.shape
    length = T // parts
    if length < max(1, least * rate):
        raise UserError(
            f"records of {T / rate:g} s give {parts} adjacent segments of {length / rate:g} s, and "
            f"{least:g} s are needed: use longer records or fewer segments"
        )
    return ecg[:, : parts * length].reshape(B, parts, length, C)


PLAIN = (scale, invert, vcg, shift, crop_resize, permute, time_mask, lead_mask, jitter)
AT_RATE = (crop, wander, hum, muscle, frequency_mask)  # these need the records' rate
NAMES = tuple(f.__name__ for f in PLAIN + AT_RATE)


def compose(steps: Sequence[Mapping[str, Any]], rate: int) -> Augmentation:
    """The augmentations of a config, in its order: `[{"name": "scale", "low": 0.9}, ...]`.

    `rate` is that of the records, in Hz.

    Raises:
      UserError: an unknown name or argument, a value out of range, or `crop` after others.
    """
    known: dict[str, Any] = {f.__name__: f for f in PLAIN}
    known |= {f.__name__: functools.partial(f, rate=rate) for f in AT_RATE}
    chain = []
    for step in steps:
        if not isinstance(step, Mapping):
            raise UserError(f"augmentation {step!r}: write {{'name': ..., options}}")
        options = dict(step)
        name = options.pop("name", None)
        if name not in known:
            raise UserError(f"unknown augmentation {name!r}: there are {', '.join(sorted(known))}")
        if name == "crop" and chain:
            raise UserError("the augmentation crop comes first: what follows then has less to do")
        try:
            chain.append(known[name](**options))
        except (TypeError, UserError) as error:
            raise UserError(f"augmentation {name}: {error}") from error

    def apply(key, ecg, mask):
        keys = jax.random.split(key, len(chain)) if chain else ()
        for one, augmentation in zip(keys, chain, strict=True):
            ecg, mask = augmentation(one, ecg, mask)
        return ecg, mask

    return apply


def length(steps: Sequence[Mapping[str, Any]], seconds: float) -> float:
    """The seconds of what a chain makes of records of `seconds`: fewer if it has a `crop`.

    Raises:
      UserError: it would cut more out of them than they have.
    """
    for step in steps:
        if step["name"] == "crop":
            return _cut(step.get("seconds"), seconds)
    return seconds


def _cut(wanted: float | None, seconds: float) -> float:
    """The seconds of a crop of records of `seconds`."""
    if wanted is None:
        return min(STRETCH, seconds)
    if wanted > seconds:
        raise UserError(
            f"the augmentation crop cuts {wanted:g} s out of {seconds:g} s: set its seconds lower"
        )
    return wanted


def _at(ecg: jax.Array, t: jax.Array) -> jax.Array:
    """Each record's samples at its own times: [B, T, C] at int [B, ...] -> [B, ..., C]."""
    return jax.vmap(lambda x, i: x[i])(ecg, t)


def _orders(key: jax.Array, B: int, n: int) -> jax.Array:
    """A random order of 0 ... n - 1 for every record, int32 [B, n]."""
    return jax.random.permutation(key, jnp.tile(jnp.arange(n), (B, 1)), axis=1, independent=True)
