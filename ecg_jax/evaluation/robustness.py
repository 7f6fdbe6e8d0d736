"""Harder recordings: fewer leads, noise, lower sampling rates. int16 microvolts in and out.

Nothing is learned or chosen on what these return: they are for test records only. What lies beyond
a record's own samples, and leads that it lacks, stay zero.
"""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ecg_jax.data.leads import LEADS
from ecg_jax.data.records import Records
from ecg_jax.errors import UserError

# The PhysioNet/Computing in Cardiology Challenge 2021 scored 12, 6, 4, 3 and 2 leads (Reyna et al.
# 2021); one lead, I, is what a watch records, and from eight the other four follow.
SUBSETS = {
    12: LEADS,
    8: ("I", "II", *LEADS[6:]),
    6: ("I", "II", "III", "aVR", "aVL", "aVF"),
    4: ("I", "II", "III", "V2"),
    3: ("I", "II", "V2"),
    2: ("I", "II"),
    1: ("I",),
}

# Hz. Respiration and drifting electrodes lie below 0.5; a muscle's potentials reach beyond what the
# records' rates hold.
BANDS = {
    "white": (0.0, math.inf),
    "baseline wander": (0.05, 0.5),
    "muscle": (20.0, math.inf),
}
SNRS = (20, 10, 0)  # dB
RATES = (50, 25)  # Hz

_ROWS = 64  # records at a time


class Condition(NamedTuple):
    """`name` stands in a result row's `condition`; `apply` takes records and gives them."""

    name: str
    apply: Callable[[Records], Records]


def conditions(rate: int) -> list[Condition]:
    """All conditions of records at `rate` Hz: leads, noise, and the rates that lie below it."""
    found = [
        Condition(f"{n} lead{'s' if n > 1 else ''}", functools.partial(only, names=names))
        for n, names in SUBSETS.items()
    ]
    for kind in BANDS:
        prefix = "" if kind == "white" else f"{kind}, "
        for snr in SNRS:
            apply = functools.partial(_noise, snr=snr, kind=kind)
            found.append(Condition(f"{prefix}SNR {snr} dB", apply))
    lower = [to for to in RATES if to < rate]
    return found + [Condition(f"{to} Hz", functools.partial(_resample, to=to)) for to in lower]


def keep_leads(
    ecg: np.ndarray, lead_mask: np.ndarray, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Zeroes every lead that is not among `names`.

    Args:
      ecg: int16 [N, T, 12].
      lead_mask: bool [N, 12]; a record keeps those of `names` that it has.

    Raises:
      UserError: an unknown lead, or a record that has none of them.
    """
    if unknown := [name for name in names if name not in LEADS]:
        raise UserError(f"unknown leads {', '.join(unknown)}: there are {', '.join(LEADS)}")
    mask = np.asarray(lead_mask) & np.isin(LEADS, names)
    without = int((~mask.any(axis=1)).sum())
    if without:
        raise UserError(
            f"{without} of {len(mask)} records have none of the leads {', '.join(names)}"
        )
    return np.where(mask[:, None], ecg, np.int16(0)), mask


def add_noise(
    ecg: np.ndarray,
    lead_mask: np.ndarray,
    length: np.ndarray,
    record_id: Sequence[str] | np.ndarray,
    *,
    snr: float,
    rate: int,
    kind: str = "white",
    seed: int = 0,
) -> np.ndarray:
    """Adds noise to every lead that is there, as much in each, and saturates at int16.

    SNR = 10 log10(signal / noise): power of a record's leads about their means over power of the
    noise as drawn, both summed over the leads that are there. Leads are independent of each other.
    The noise of a record follows from its id and the seed, and is the same for every SNR but for
    its size. A record whose leads are all flat stays so.

    Args:
      ecg: int16 [N, T, 12].
      lead_mask: bool [N, 12].
      length: int [N], samples that are the record's own.
      record_id: [N].
      snr: in dB.
      rate: in Hz.
      kind: one of `BANDS`.

    Raises:
      UserError: an unknown kind, a ratio that is not finite, a record too short for its band.
    """
    if kind not in BANDS:
        raise UserError(f"unknown noise {kind!r}: there are {', '.join(BANDS)}")
    if not math.isfinite(snr):
        raise UserError(f"the signal-to-noise ratio must be a number of dB, not {snr}")
    noisy = np.array(ecg)
    for out, mask, n, name in zip(noisy, lead_mask, length, record_id, strict=True):
        if not n or not mask.any():
            continue
        signal = out[:n, mask].astype(np.float64)
        noise = _draw_noise(str(name), int(n), rate, BANDS[kind], seed)[:, mask]
        if not noise.any():
            raise UserError(f"record {name} has {n} samples at {rate} Hz: too few for {kind} noise")
        share = signal.var(axis=0).sum() / (noise**2).mean(axis=0).sum()
        out[:n, mask] = _int16(signal + noise * math.sqrt(share * 10 ** (-snr / 10)))
    return noisy


def resample(
    ecg: np.ndarray, lead_mask: np.ndarray, length: np.ndarray, *, rate: int, to: int
) -> np.ndarray:
    """What is left of records at `rate` Hz once they were sampled at `to` Hz: filtered against
    aliasing, sampled, and brought back to `rate`.

    Args:
      ecg: int16 [N, T, 12].
      lead_mask: bool [N, 12].
      length: int [N], samples that are the record's own.

    Raises:
      UserError: `to` is not a whole number of Hz below `rate`.
    """
    if not (isinstance(to, int) and 0 < to < rate):
        raise UserError(f"records at {rate} Hz can be brought to a lower rate, not to {to} Hz")
    from scipy.signal import resample_poly  # slow to import

    back, mask, length = np.array(ecg), np.asarray(lead_mask), np.asarray(length)
    for n in np.unique(length[length > 0]):
        same = np.flatnonzero(length == n)
        for start in range(0, len(same), _ROWS):
            rows = same[start : start + _ROWS]
            x = back[rows, :n].astype(np.float64)
            # "line": the ends do not ring where a record begins or stops away from zero.
            low = resample_poly(x, to, rate, axis=1, padtype="line")
            high = resample_poly(low, rate, to, axis=1, padtype="line")[:, :n]
            back[rows, :n] = np.where(mask[rows, None], _int16(high), back[rows, :n])
    return back


def only(records: Records, names: Sequence[str]) -> Records:
    """Records with no leads but these, their signals in memory; errors as of `keep_leads`."""
    ecg, mask = keep_leads(records.ecg[:], records.lead_mask, names)
    return dataclasses.replace(records, ecg=ecg, lead_mask=mask)


def _noise(records: Records, snr: float, kind: str) -> Records:
    of = (records.ecg[:], records.lead_mask, records.length, records.record_id)
    return dataclasses.replace(records, ecg=add_noise(*of, snr=snr, rate=records.rate, kind=kind))


def _resample(records: Records, to: int) -> Records:
    of = (records.ecg[:], records.lead_mask, records.length)
    return dataclasses.replace(records, ecg=resample(*of, rate=records.rate, to=to))


def _draw_noise(name: str, n: int, rate: int, band: tuple[float, float], seed: int) -> np.ndarray:
    """Noise [n, 12] within a band, from the record's name and the seed alone."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16])
    noise = np.random.default_rng([seed, key]).normal(size=(n, len(LEADS)))
    if band == BANDS["white"]:
        return noise
    frequency = np.fft.rfftfreq(n, 1 / rate)
    outside = (frequency < band[0]) | (frequency > band[1])
    spectrum = np.fft.rfft(noise, axis=0)
    spectrum[outside] = 0
    return np.fft.irfft(spectrum, n, axis=0)


def _int16(x: np.ndarray) -> np.ndarray:
    """Whole microvolts, saturated."""
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(x), limits.min, limits.max).astype(np.int16)
