"""Augmentations that disturb a recording as electrodes, muscles and mains do, or take a band of its
spectrum away. In the form of `augment`; what each keeps is the heart's own signal beneath.

Disturbances are drawn at the nine electrodes, so that those of the leads are bound by Einthoven's
and Goldberger's laws as the heart's own signal is, and a chest lead has its part of Wilson's
terminal. They are as large in I, II, III and V1-V6 as stated, and in the augmented leads, whose law
allows no more, sqrt(3/4) of that.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ecg_jax.data.bounds import within
from ecg_jax.data.leads import ELECTRODES, LEADS_FROM_ELECTRODES
from ecg_jax.errors import UserError
from ecg_jax.runtime import parallel

Augmentation = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]

MUSCLE = 20.0  # Hz, where the potentials of skeletal muscle begin in earnest
CARDIAC = 40.0  # Hz, below which nearly all of an ECG's power lies
BURSTS = 3  # of muscle noise in a record

# A lead of variance 1 has 1/2 from each of two limb electrodes, or 5/6 from one on the chest and
# 1/6 from Wilson's terminal.
_SHARES = np.sqrt([1 / 2] * 3 + [5 / 6] * 6)
_MIXED = (LEADS_FROM_ELECTRODES * _SHARES).T.astype("float32")  # [9, 12]


def jitter(sd: float = 0.02) -> Augmentation:
    """White noise of `sd` (in the recipe's units), its strength drawn between 0 and `sd`. Rhythm
    and all waves but the smallest stay; fine detail such as notches may drown."""
    within("sd", sd, 0)

    def apply(key, ecg, mask):
        strength, noise = jax.random.split(key)
        sds = jax.random.uniform(strength, (ecg.shape[0], 1, 1), ecg.dtype, 0, sd)
        drawn = jax.random.normal(noise, (*ecg.shape[:2], len(ELECTRODES)), ecg.dtype)
        # Drawing is dear, so that XLA writes what is drawn, and reads it for each lead: in bytes,
        # as a converter of 32 steps to the deviation and 256 in all would give it.
        steps = jnp.round(32 * drawn).clip(-128, 127).astype(jnp.int8)
        parts = jax.lax.optimization_barrier(_apart(steps))
        mixed = _in_leads([x.astype(ecg.dtype) for x in parts])
        return _add(ecg, mask, sds / 32 * mixed), mask

    return apply


def wander(sd: float = 0.1, *, rate: int) -> Augmentation:
    """Baseline wander: per record one frequency between 0.05 and 0.5 Hz, as breathing and slow
    electrode drift make, per electrode a phase and an amplitude, which is up to `sd` in a lead. QRS
    and rhythm stay; the ST level shifts."""
    within("sd", sd, 0)

    def apply(key, ecg, mask):
        B, T, _ = ecg.shape
        f, w = jax.random.split(key)
        frequency = jax.random.uniform(f, (B, 1), minval=0.05, maxval=0.5)
        turn = 2 * jnp.pi * frequency * jnp.arange(T) / rate
        return _add(ecg, mask, _waves(w, turn, sd)), mask

    return apply


def hum(
    amplitude: float = 0.05, mains: Sequence[float] = (50.0, 60.0), *, rate: int
) -> Augmentation:
    """Mains hum: per record one of `mains` (Hz), per electrode a phase and an amplitude, which is
    up to `amplitude` in a lead. Waves stay, small notches and the P wave may drown.

    Only frequencies below half the rate are drawn: a recorder's anti-aliasing filter takes the
    others away before it samples, so that real records hold no alias of them.

    Raises:
      UserError: no such frequency is left; at 100 Hz that is so for 50 and 60 Hz.
    """
    within("amplitude", amplitude, 0)
    for f in mains:
        within("mains", f, 1)
    held = [f for f in mains if f < rate / 2]
    if not held:
        names = " and ".join(f"{f:g}" for f in mains)
        raise UserError(f"records at {rate} Hz hold no hum of {names} Hz: leave it out")

    def apply(key, ecg, mask):
        B, T, _ = ecg.shape
        f, w = jax.random.split(key)
        frequency = jax.random.choice(f, jnp.array(held, jnp.float32), (B, 1))
        # whole turns are dropped before the sine, where they would cost digits
        turn = 2 * jnp.pi / rate * ((frequency * jnp.arange(T)) % rate)
        return _add(ecg, mask, _waves(w, turn, amplitude)), mask

    return apply


def muscle(sd: float = 0.05, *, rate: int) -> Augmentation:
    """Muscle noise: bursts of 0.2 to 2 s with frequencies from 20 Hz to half the rate, at the same
    times in all leads, independent at each electrode and of its own strength, up to `sd` in a lead.

    Rhythm, QRS and T stay; small and fast details (P waves, notches, f waves) may drown.
    """
    within("sd", sd, 0)
    if rate / 2 <= MUSCLE:
        raise UserError(f"records at {rate} Hz hold no muscle noise above {MUSCLE:g} Hz")

    def apply(key, ecg, mask):
        B, T, _ = ecg.shape
        noise, burst, strength = jax.random.split(key, 3)
        sds = jax.random.uniform(strength, (B, 1, len(ELECTRODES)), maxval=sd)
        at_electrodes = _apart(sds * _muscle_noise(noise, (B, T, len(ELECTRODES)), rate))
        envelope = _bursts(burst, B, T, rate)[:, :, None]
        return _add(ecg, mask, envelope * _in_leads(at_electrodes)), mask

    return apply


def frequency_mask(width: float = 10.0, *, rate: int) -> Augmentation:
    """Zeroes one band of up to `width` Hz, the same in all leads, anywhere below 40 Hz (or half the
    rate, if that is lower).

    Rhythm and the ratios between leads stay. The shape of waves does not: a low band carries T and
    ST, one between 5 and 20 Hz most of the QRS complex.
    """
    highest = min(CARDIAC, rate / 2)
    within("width", width, 0, highest)

    def apply(key, ecg, mask):
        B, T, _ = ecg.shape
        place, size = jax.random.split(key)
        band = jax.random.uniform(size, (B, 1), maxval=width)
        start = jax.random.uniform(place, (B, 1)) * (highest - band)
        f = jnp.fft.rfftfreq(T, 1 / rate)
        hidden = (f >= start) & (f < start + band)
        x = ecg.astype(jnp.promote_types(ecg.dtype, jnp.float32))  # there is no FFT of halves
        return parallel.by_rows(_without, x, hidden).astype(ecg.dtype), mask

    return apply


def _without(x: jax.Array, hidden: jax.Array) -> jax.Array:
    """x [B, T, C] without the frequencies that are hidden [B, T // 2 + 1]."""
    spectrum = jnp.where(hidden[:, :, None], 0, jnp.fft.rfft(x, axis=1))
    return jnp.fft.irfft(spectrum, x.shape[1], axis=1)


def _add(ecg: jax.Array, mask: jax.Array, wave: jax.Array) -> jax.Array:
    """ecg + wave where there is a lead."""
    return jnp.where(mask[:, None, :], ecg + wave.astype(ecg.dtype), ecg)


def _apart(x: jax.Array) -> list[jax.Array]:
    """[..., 9] -> 9 x [...]"""
    return [x[..., i] for i in range(len(ELECTRODES))]


def _in_leads(parts: list[jax.Array]) -> jax.Array:
    """9 x [...] drawn alike at each electrode -> [..., 12]: as large in the leads, see above."""
    # No matrix product, which would write its result to memory.
    mixed = _MIXED.astype(parts[0].dtype)
    return functools.reduce(
        jnp.add, (x[..., None] * leads for x, leads in zip(parts, mixed, strict=True))
    )


def _waves(key: jax.Array, turn: jax.Array, most: float) -> jax.Array:
    """Sines [B, T, 12] of angles [B, T], drawn at the electrodes with phases and amplitudes of
    their own. Where one would have more than `most` in a lead, all of the record are lessened."""
    a, p = jax.random.split(key)
    shape = (len(turn), 1, len(ELECTRODES))
    size = jax.random.uniform(a, shape, maxval=most)
    phase = jax.random.uniform(p, shape, maxval=2 * jnp.pi)
    # sin(turn + phase), with sines of [B, T] and of [B, 9] instead of [B, T, 9]
    sine, cosine = (_in_leads(_apart(size * f(phase))) for f in (jnp.cos, jnp.sin))
    largest = jnp.hypot(sine, cosine).max(axis=2, keepdims=True)
    halves = [f(turn).astype(jnp.float16) for f in (jnp.sin, jnp.cos)]  # written, see `jitter`
    sin, cos = (x.astype(turn.dtype)[:, :, None] for x in jax.lax.optimization_barrier(halves))
    wave = sin * sine + cos * cosine
    return wave * jnp.minimum(1, most / jnp.maximum(largest, 1e-9))


def _muscle_noise(key: jax.Array, shape: tuple[int, ...], rate: int) -> jax.Array:
    """Noise float32 [B, T, C] of variance 1 within the band, made of its spectrum.

    The spectrum's values are bytes, four to a drawn word: drawing is what noise costs, and a sum
    over a band of values of any distribution is nearly normal.
    """
    B, T, C = shape
    f = np.fft.rfftfreq(T, 1 / rate)
    inside = np.flatnonzero((f >= MUSCLE) & (f < rate / 2))
    K = len(inside)
    words = jax.random.bits(key, (B, C, -(-K // 2)), jnp.uint32)
    drawn = jax.lax.bitcast_convert_type(words, jnp.uint8).reshape(B, C, -1, 2)[:, :, :K]
    uniform = (drawn.astype(jnp.float32) - 127.5) / 128
    # each bin adds 2 / T^2 x (variance of its real and imaginary part, a third each)
    spectrum = jax.lax.complex(uniform[..., 0], uniform[..., 1]) * (T * np.sqrt(3 / (4 * K)))
    below, above = inside[0], len(f) - 1 - inside[-1]
    spectrum = jnp.pad(spectrum, ((0, 0), (0, 0), (below, above)))
    noise = parallel.by_rows(lambda s: jnp.fft.irfft(s, T, axis=2), spectrum)
    return noise.swapaxes(1, 2)


def _bursts(key: jax.Array, B: int, T: int, rate: int) -> jax.Array:
    """Envelope float32 [B, T] in [0, 1]: bursts that swell and fade as a raised cosine."""
    place, size = jax.random.split(key)
    centre = jax.random.uniform(place, (B, 1, BURSTS), maxval=T)
    half = jax.random.uniform(size, (B, 1, BURSTS), minval=0.1, maxval=1.0) * rate
    away = jnp.minimum(jnp.abs(jnp.arange(T)[None, :, None] - centre) / half, 1)
    return (0.5 + 0.5 * jnp.cos(jnp.pi * away)).max(axis=2)
