"""R peaks of recordings, many at a time.

Own code, because a whole data set has to go through in minutes: the energy in the QRS band, of all
leads that show complexes, thresholds from the recording's own peaks, and a look back where a beat
is missing (the plan of Pan and Tompkins 1985, IEEE Trans Biomed Eng 32:230-236; what is a constant
there is taken from the recording here).
"""

import itertools

import numpy as np

BAND = (6.0, 22.0)  # Hz, where the QRS complex is and P and T waves are not
WIDTH = 0.10  # s, over which energy is summed: about a complex
REFRACTORY = 0.20  # s, in which a ventricle does not beat again
LOWEST = 0.34  # of the level of peaks around it, which a beat has at least
LOOKED_BACK = 0.15  # the same, where a beat is missing
GAP = 1.65  # usual intervals, after which one is
T_WAVE = 0.36  # s after a beat, in which a peak is a T wave's, if it is lower than
T_HEIGHT = 0.55  # of that beat's
AROUND = 5.0  # s, whose peaks make a peak's level
SETTLE = 2.0  # s, which a stretch of a long recording has in common with its neighbours
STRETCH = 12.0  # s of such a stretch
_SAMPLES = 256_000  # of each lead, filtered at a time


def r_peaks(ecg: np.ndarray, lead_mask: np.ndarray, length: np.ndarray, rate: int) -> list:
    """The samples of the R peaks of every recording, int64 [beats], in their order.

    The peak is where the leads together are farthest from their baseline.

    Args:
      ecg: int16 [N, T, 12] microvolts.
      lead_mask: bool [N, 12].
      length: int [N], samples that are a recording's own.
      rate: in Hz.
    """
    found = []
    rows = max(1, _SAMPLES // max(ecg.shape[1], 1))
    for start in range(0, len(ecg), rows):
        part = slice(start, start + rows)
        x = np.where(lead_mask[part, None, :], np.asarray(ecg[part]), 0).astype(np.float32)
        found += _of_stretches(x, np.asarray(length[part]), rate)
    return found


def _of_stretches(x: np.ndarray, length: np.ndarray, rate: int) -> list:
    """`_of_batch`, of long recordings stretch by stretch."""
    T, step, settle = x.shape[1], round(STRETCH * rate), round(SETTLE * rate)
    if step + 2 * settle >= T:
        return _of_batch(x, length, rate)
    found: list = [[] for _ in x]
    for start in range(0, T, step):
        first, last = max(0, start - settle), min(T, start + step + settle)
        own = np.clip(length - first, 0, last - first)
        for peaks, here in zip(found, _of_batch(x[:, first:last], own, rate), strict=True):
            here = here + first
            peaks.append(here[(here >= start) & (here < start + step)])
    return [_apart(np.concatenate(peaks), round(REFRACTORY * rate)) for peaks in found]


def _apart(peaks: np.ndarray, least: int) -> np.ndarray:
    """Without those that the stretch before has found, too, a little elsewhere."""
    return peaks[np.diff(peaks, prepend=-least - 1) > least // 2]


def _of_batch(x: np.ndarray, length: np.ndarray, rate: int) -> list:
    from scipy.ndimage import uniform_filter1d
    from scipy.signal import butter, find_peaks, sosfiltfilt

    if not len(x) or x.shape[1] < rate // 2:
        return [np.zeros(0, np.int64) for _ in x]
    sos = butter(2, BAND, "bandpass", fs=rate, output="sos")
    for row, n in zip(x, length, strict=True):  # no step where a recording ends early
        row[n:] = row[n - 1] if n else 0
    fast = sosfiltfilt(sos, x, axis=1).astype(np.float32)
    energy = np.sqrt(uniform_filter1d(fast**2, max(1, round(WIDTH * rate)), axis=1))
    strength = _together(energy)
    baseline = butter(2, 1.0, "highpass", fs=rate, output="sos")
    size = np.sqrt((sosfiltfilt(baseline, x, axis=1) ** 2).sum(axis=2))
    found = []
    for curve, magnitude, n in zip(strength, size, length, strict=True):
        at, _ = find_peaks(np.pad(curve[:n], 1), distance=max(1, round(REFRACTORY * rate)))
        at = at - 1
        height = curve[at]
        at = at[_beats(at / rate, height)] if n >= rate // 2 else at[:0]
        found.append(_refined(at, magnitude[:n], round(0.06 * rate)))
    return found


def _together(energy: np.ndarray) -> np.ndarray:
    """[N, T]: the leads' energies [N, T, 12], each in terms of its own peaks, weighted by how far
    these stand out."""
    T = energy.shape[1]
    high = np.partition(energy, T - 1 - T // 50, axis=1)[:, T - 1 - T // 50]
    low = np.partition(energy, T // 2, axis=1)[:, T // 2]
    there = high > 5.0  # microvolts; below there is no complex
    out = np.maximum(1 - 2 * low / np.maximum(high, 1e-6), 0.02) ** 2 * there
    weight = out / np.maximum(high, 1e-6) / np.maximum(out.sum(axis=1, keepdims=True), 1e-6)
    return np.einsum("ntc,nc->nt", energy, weight)


def _beats(time: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Which of the peaks (s, relative height) are beats: their indices."""
    if not len(time):
        return np.zeros(0, np.int64)
    near = np.abs(time[:, None] - time) <= AROUND
    usual = np.where(near, height, np.nan)
    # About one peak a second is a beat, of two to five: the level is among the upper ones.
    level = np.nanquantile(usual, 0.85, axis=1)
    taken = list(np.flatnonzero(height >= LOWEST * level))
    taken = _without_t_waves(taken, time, height)
    if len(taken) > 2:
        taken = _looked_back(taken, time, height, level)
    return np.array(taken, np.int64)


def _without_t_waves(taken: list, time: np.ndarray, height: np.ndarray) -> list:
    kept: list = []
    for i in taken:
        if kept and time[i] - time[kept[-1]] < T_WAVE and height[i] < T_HEIGHT * height[kept[-1]]:
            continue
        while (
            kept
            and time[i] - time[kept[-1]] < T_WAVE
            and height[kept[-1]] < T_HEIGHT * height[i] * 0.7
        ):
            kept.pop()  # a P wave
        kept.append(i)
    return kept


def _looked_back(taken: list, time: np.ndarray, height: np.ndarray, level: np.ndarray) -> list:
    usual = np.median(np.diff(time[taken]))
    more = []
    for a, b in itertools.pairwise(taken):
        if time[b] - time[a] <= GAP * usual:
            continue
        between = [
            i
            for i in range(a + 1, b)
            if min(time[i] - time[a], time[b] - time[i]) > max(T_WAVE, 0.4 * usual)
            and height[i] >= LOOKED_BACK * level[i]
        ]
        if between:
            more.append(max(between, key=lambda i: height[i]))
    return sorted([*taken, *more])


def _refined(at: np.ndarray, size: np.ndarray, reach: int) -> np.ndarray:
    """The largest of `size` within `reach` samples of each peak."""
    if not len(at):
        return at.astype(np.int64)
    window = np.clip(at[:, None] + np.arange(-reach, reach + 1), 0, len(size) - 1)
    best = size[window].argmax(axis=1)
    return np.unique(window[np.arange(len(at)), best])
