"""When the beats come: sinus rhythms, atrial fibrillation, pacing, and premature beats in them."""

import dataclasses

import numpy as np

# Beats per minute; sinus limits as the diagnoses define them, a little inside so that
# beat-to-beat variation does not cross them.
RATES = {
    "SR": (63, 96),
    "SBRAD": (42, 56),
    "STACH": (105, 140),
    "AFIB": (62, 128),
    "PACE": (65, 80),
}


@dataclasses.dataclass(frozen=True)
class Rhythm:
    """Beats in time order, including those just outside the recording whose waves reach into it."""

    onset: np.ndarray  # [B] QRS onsets, seconds
    kind: np.ndarray  # [B] "N" conducted, "A" and "V" premature, "/" paced
    rr: np.ndarray  # [B] seconds since the beat before
    rr_mean: float  # mean of the undisturbed rhythm


def draw_rhythm(rng: np.random.Generator, findings: frozenset[str], seconds: float) -> Rhythm:
    """Draws a rhythm over `seconds`; a finding of premature beats brings at least one."""
    rhythm = next(f for f in findings if f in RATES)
    rr_mean = 60 / rng.uniform(*RATES[rhythm])
    rr = _intervals(rng, rhythm, rr_mean, int(np.ceil((seconds + 4) / rr_mean * 1.15)) + 4)
    kind = np.full(len(rr), "/" if rhythm == "PACE" else "N")
    start = -1.5 - rng.uniform(0, rr_mean)

    # Every second beat, so that no premature beat follows another, and clear of the edges.
    onset = start + np.cumsum(rr)
    free = rng.permutation(np.flatnonzero((onset > 0.8) & (onset < seconds - 0.5))[::2])
    symbols = [symbol for code, symbol in (("PAC", "A"), ("PVC", "V")) if code in findings]
    for still, symbol in zip(range(len(symbols))[::-1], symbols, strict=True):
        count = np.clip(round(2 * len(free) * rng.uniform(0.04, 0.16)), 1, len(free) - still)
        for k in free[:count]:
            _make_premature(rng, rr, kind, k, symbol, rr_mean)
        free = free[count:]
    return Rhythm(start + np.cumsum(rr), kind, rr, rr_mean)


def _intervals(rng, rhythm, rr_mean, n):
    if rhythm == "AFIB":  # irregularly irregular
        rr = rr_mean * rng.lognormal(-0.02, rng.uniform(0.17, 0.26), n)
        return np.clip(rr, 0.34, 2.2)
    if rhythm == "PACE":
        return np.full(n, rr_mean)
    breath = 2 * np.pi * (rng.uniform(0.18, 0.33) * rr_mean * np.arange(n) + rng.random())
    depth = rng.uniform(0.005, 0.03)
    return rr_mean * (1 + depth * np.sin(breath) + rng.normal(0, 0.006, n))


def _make_premature(rng, rr, kind, k, symbol, rr_mean):
    """An early beat k; after a ventricular one the rhythm goes on as if undisturbed, an atrial one
    resets it."""
    kind[k] = symbol
    if symbol == "A":
        rr[k] *= rng.uniform(0.58, 0.76)
        rr[k + 1] *= rng.uniform(1.05, 1.2)
        return
    both = rr[k] + rr[k + 1]
    rr[k] = max(rng.uniform(0.58, 0.72) * min(rr[k], rr_mean), 0.32)
    rr[k + 1] = max(both - rr[k], 0.45)
