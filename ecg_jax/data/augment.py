"""Augmentations: jitted, batched, drawn anew for every record and step.

Each takes a key and ecg float [B, T, 12] with lead_mask bool [B, 12] and returns both.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ecg_jax.errors import UserError

Augmentation = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def scale(low: float = 0.8, high: float = 1.25) -> Augmentation:
    """One gain for the whole record: morphology and rhythm stay, absolute voltage does not."""

    def apply(key, ecg, mask):
        gain = jax.random.uniform(key, (ecg.shape[0], 1, 1), ecg.dtype, jnp.log(low), jnp.log(high))
        return ecg * jnp.exp(gain), mask

    return apply


def jitter(sd: float = 0.02) -> Augmentation:
    """White noise of `sd` (in the recipe's units), its strength drawn between 0 and `sd`."""

    def apply(key, ecg, mask):
        strength, noise = jax.random.split(key)
        sds = jax.random.uniform(strength, (ecg.shape[0], 1, 1), ecg.dtype, 0, sd)
        noisy = ecg + sds * jax.random.normal(noise, ecg.shape, ecg.dtype)
        return jnp.where(mask[:, None, :], noisy, ecg), mask

    return apply


def shift(fraction: float = 0.2) -> Augmentation:
    """Starts the record up to `fraction` of its length later and fills up with zeros.

    Rhythm and morphology stay; which beats are seen changes.
    """

    def apply(key, ecg, mask):
        T = ecg.shape[1]
        most = int(fraction * T)
        offset = jax.random.randint(key, (ecg.shape[0],), 0, most + 1)
        padded = jnp.pad(ecg, ((0, 0), (0, most), (0, 0)))
        cut = jax.vmap(lambda x, i: jax.lax.dynamic_slice_in_dim(x, i, T))
        return cut(padded, offset), mask

    return apply


def time_mask(fraction: float = 0.2) -> Augmentation:
    """Zeroes one stretch of up to `fraction` of the record in all leads."""

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
    """Drops each lead with `probability` (random lead masking): the record is seen from fewer
    directions. A record never loses all of its leads."""

    def apply(key, ecg, mask):
        keep = jax.random.bernoulli(key, 1 - probability, mask.shape) & mask
        keep = jnp.where(keep.any(axis=1, keepdims=True), keep, mask)
        return jnp.where(keep[:, None, :], ecg, 0), keep

    return apply


def wander(sd: float = 0.1, *, rate: int) -> Augmentation:
    """Baseline wander: per lead, one sine between 0.05 and 0.5 Hz, as breathing and slow
    electrode drift make, of amplitude up to `sd`."""

    def apply(key, ecg, mask):
        B, T, C = ecg.shape
        a, f, p = jax.random.split(key, 3)
        amplitude = jax.random.uniform(a, (B, 1, C), ecg.dtype, 0, sd)
        frequency = jax.random.uniform(f, (B, 1, 1), ecg.dtype, 0.05, 0.5)
        phase = jax.random.uniform(p, (B, 1, C), ecg.dtype, 0, 2 * jnp.pi)
        t = (jnp.arange(T, dtype=ecg.dtype) / rate)[None, :, None]
        drift = amplitude * jnp.sin(2 * jnp.pi * frequency * t + phase)
        return jnp.where(mask[:, None, :], ecg + drift, ecg), mask

    return apply


def compose(steps: Sequence[Mapping[str, Any]], rate: int) -> Augmentation:
    """The augmentations of a config, in its order: `[{"name": "scale", "low": 0.9}, ...]`.

    `rate` is that of the records, in Hz.

    Raises:
      UserError: an unknown name or argument.
    """
    known = {f.__name__: f for f in (scale, jitter, shift, time_mask, lead_mask)}
    known["wander"] = functools.partial(wander, rate=rate)
    chain = []
    for step in steps:
        options = dict(step)
        name = options.pop("name", None)
        if name not in known:
            raise UserError(f"unknown augmentation {name!r}: there are {', '.join(sorted(known))}")
        try:
            chain.append(known[name](**options))
        except TypeError as error:
            raise UserError(f"augmentation {name}: {error}") from error

    def apply(key, ecg, mask):
        for i, augmentation in enumerate(chain):
            ecg, mask = augmentation(jax.random.fold_in(key, i), ecg, mask)
        return ecg, mask

    return apply
