"""What recordings show of the heart, as numbers: intervals, axes, amplitudes, and each beat's own.

Own code on arrays, so that PTB-XL goes through in minutes. A record's intervals are measured in its
representative beat, as electrocardiographs do: the median of its usual beats, all leads together.
A number is NaN where a record does not show what it is of (PR where there is no P wave).
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ecg_jax.data import beats
from ecg_jax.data.leads import LEADS
from ecg_jax.data.records import Records
from ecg_jax.data.vcg import EIGHT, VCG_FROM_LEADS
from ecg_jax.runtime import cache, files, storage

VERSION = 1  # of what is measured, and of the files that keep it
GROUPS = {
    "lateral": ("I", "aVL", "V5", "V6"),
    "inferior": ("II", "III", "aVF"),
    "anterior": ("V1", "V2", "V3", "V4"),
}
# Of a record. Intervals in s, amplitudes in mV against the level before QRS, angles as their cosine
# and sine; `ectopy` is the share of beats that are early or of another form, `quality` the share of
# the usual beats' energy that the representative beat explains.
RECORD = (
    *("heart_rate", "sdnn", "rmssd", "pr", "p_width", "qrs", "qt", "qtc"),
    *(f"{wave}_axis_{f}" for wave in ("p", "qrs", "t") for f in ("cos", "sin")),
    *(f"{what}_{group}" for what in ("r", "st", "t") for group in GROUPS),
    *("ectopy", "quality"),
)
# Of a beat. `qrs_area` in mV s and the direction are of Frank's vector; `alike` is the correlation
# with the representative beat around QRS.
BEAT = (
    *("pre_rr", "post_rr", "pre_rr_ratio", "qrs", "qrs_area", "qrs_x", "qrs_y", "qrs_z"),
    *("t_amplitude", "alike"),
)
BEATS_PER_SECOND = 4  # at most; faster ones are not kept

BEFORE, AFTER = 0.40, 0.60  # s around R that are looked at
_QRS = (-0.10, 0.14)  # s, where QRS is
ALIKE = 0.8  # a usual beat's correlation with the representative one
EARLY = 0.85  # of the median interval, before which a beat is early
_FINE = 500  # Hz, at which boundaries are looked for
# Of the highest spatial velocity, below which QRS has not begun or has ended, and how much later
# than the tangent a reader sees T end, in s: set on LUDB's training records.
_ONSET, _OFFSET = 0.08, 0.12
_AFTER_TANGENT = 0.016
_P_ALIKE = 0.6  # correlation of single beats with the representative one where there is a P wave
_P_LEAST = 0.015  # mV, root mean square over the leads at the peak of P


class Physiology(NamedTuple):
    """Of N records, K the most beats that are kept of one.

    Attributes:
      record: float32 [N, len(RECORD)].
      peak: int32 [N, K], the samples of the R peaks, -1 after the last.
      beat: float32 [N, K, len(BEAT)], NaN after the last.
    """

    record: Any
    peak: Any
    beat: Any


def blank(N: int, T: int, rate: float) -> Physiology:
    """Of records that show nothing."""
    K = max(1, round(BEATS_PER_SECOND * T / rate))
    return Physiology(
        np.full((N, len(RECORD)), np.nan, np.float32),
        np.full((N, K), -1, np.int32),
        np.full((N, K, len(BEAT)), np.nan, np.float32),
    )


def measure(ecg: Any, lead_mask: np.ndarray, length: np.ndarray, rate: int) -> Physiology:
    """What records show.

    Args:
      ecg: int16 [N, T, 12] microvolts; or what is read as such an array from the disk.
      lead_mask: bool [N, 12].
      length: int [N], samples that are a record's own.
      rate: in Hz.
    """
    N, T = ecg.shape[:2]
    found = blank(N, T, rate)
    rows = max(1, 256_000 // max(T, 1))
    for start in range(0, N, rows):
        part = slice(start, min(start + rows, N))
        x = np.asarray(ecg[part])
        peaks = beats.r_peaks(x, lead_mask[part], length[part], rate)
        smooth = _smoothed(np.where(lead_mask[part, None], x, 0), rate)
        for i, own in enumerate(peaks):
            row, own = start + i, own[: found.peak.shape[1]]
            if len(own):
                found.peak[row, : len(own)] = own
                of_record, of_beats = _of_record(smooth[i], lead_mask[row], own, rate)
                found.record[row] = of_record
                found.beat[row, : len(own)] = of_beats
    return found


def of_records(records: Records) -> Physiology:
    """`measure` of a split, from the cache if it was measured before."""
    name = f"{VERSION} {records.rate} {records.ecg.shape[1:]}".encode()
    digest = hashlib.sha256(name)
    for array in (records.signal_sha256, records.length, records.lead_mask):
        digest.update(np.ascontiguousarray(array).data)
    path: Path = cache.folder("physiology") / f"{digest.hexdigest()}.npz"
    if storage.exists(path):
        with files.open_arrays(path) as (_, arrays):
            return Physiology(*(arrays[name] for name in Physiology._fields))
    found = measure(records.ecg, records.lead_mask, records.length, records.rate)
    files.write_arrays(path, {"version": VERSION}, found._asdict())
    return found


def _smoothed(x: np.ndarray, rate: int) -> np.ndarray:
    """Microvolts [n, T, 12] to mV float32 without baseline wander and muscle noise."""
    from scipy.signal import butter, sosfiltfilt

    if x.shape[1] < rate:
        return x.astype(np.float32) / 1000
    high = min(40.0, 0.4 * rate)
    parts: Any = [butter(1, 0.3, "highpass", fs=rate, output="sos")]
    parts.append(butter(2, high, fs=rate, output="sos"))
    sos = np.concatenate(parts)
    return (sosfiltfilt(sos, x.astype(np.float32), axis=1) / 1000).astype(np.float32)


def _of_record(
    x: np.ndarray, mask: np.ndarray, peak: np.ndarray, rate: int
) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of a record [T, 12] in mV and of its beats at `peak`."""
    before, after = round(BEFORE * rate), round(AFTER * rate)
    inside = np.clip(peak[:, None] + np.arange(-before, after), 0, len(x) - 1)
    windows = x[inside]  # [B, W, 12]
    whole = (peak >= before) & (peak < len(x) - after)
    rr = np.diff(peak) / rate
    usual_rr = float(np.median(rr)) if len(rr) else np.nan
    pre = np.concatenate([[np.nan], rr])
    early = np.nan_to_num(pre, nan=np.inf) < EARLY * usual_rr
    qrs = slice(before + round(_QRS[0] * rate), before + round(_QRS[1] * rate) + 1)
    alike = _correlation(windows[:, qrs], np.median(windows[:, qrs], axis=0))
    usual = (alike > ALIKE) & ~early & whole
    for wider in (usual, (alike > ALIKE) & whole, whole, np.ones(len(peak), bool)):
        if wider.any():
            usual = wider
            break
    mean = np.median(windows[usual], axis=0)
    alike = _correlation(windows[:, qrs], mean[qrs])
    waves = delineate(mean, windows[usual], usual_rr, rate)
    of_beats = _of_beats(windows, mask, waves, rate)
    of_beats["pre_rr"], of_beats["post_rr"] = pre, np.concatenate([rr, [np.nan]])
    of_beats["pre_rr_ratio"], of_beats["alike"] = pre / usual_rr, alike
    ectopic = early | (alike <= ALIKE)
    of_record = _amplitudes(mean, mask, waves, rate)
    calm = ~(ectopic[1:] | ectopic[:-1])
    of_record |= _intervals(rr[calm], usual_rr, waves, rate)
    of_record["ectopy"] = ectopic[whole].mean() if whole.any() else np.nan
    left = ((windows[usual] - mean) ** 2).sum()
    of_record["quality"] = max(0.0, 1 - left / max((windows[usual] ** 2).sum(), 1e-9))
    return (
        np.array([of_record[name] for name in RECORD], np.float32),
        np.stack([of_beats[name] for name in BEAT], axis=1).astype(np.float32),
    )


def _correlation(windows: np.ndarray, one: np.ndarray) -> np.ndarray:
    """[B], of each [W, 12] of `windows` with `one`, all leads in one."""
    a = (windows - windows.mean(axis=1, keepdims=True)).reshape(len(windows), -1)
    b = (one - one.mean(axis=0)).ravel()
    return (a @ b) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b), 1e-9)


class Waves(NamedTuple):
    """Boundaries in a representative beat, in samples from its start, NaN where there is none."""

    p_onset: float
    p_offset: float
    qrs_onset: float
    qrs_offset: float
    t_peak: float
    t_end: float
    level: np.ndarray  # mV [12], just before QRS


def delineate(mean: np.ndarray, single: np.ndarray, rr: float, rate: int) -> Waves:
    """Boundaries in the representative beat `mean` [W, 12] of beats `single` [B, W, 12].

    QRS is where the leads together move fast: spatial velocity above a share of its highest, which
    is what electrocardiographs do. P and T end where the steepest tangent meets the level.
    """
    from scipy.signal import resample_poly

    up = max(1, round(_FINE / rate))
    coarse, mean = mean, resample_poly(mean, up, 1, axis=0, padtype="line") if up > 1 else mean
    fine = rate * up
    before = round(BEFORE * rate) * up
    speed = np.linalg.norm(np.gradient(mean, axis=0), axis=1)
    speed = np.convolve(speed, np.ones(3) / 3, "same")
    around = slice(before - round(0.08 * fine), before + round(0.10 * fine))
    high = speed[around].max()
    quiet = 2 * np.quantile(speed[round(0.05 * fine) : before - round(0.1 * fine)], 0.3)
    backwards, forwards = speed[: before + 1][::-1], speed[before:]
    onset = _falls_below(backwards, max(_ONSET * high, quiet), round(0.016 * fine))
    offset = _falls_below(forwards, max(_OFFSET * high, quiet), round(0.020 * fine))
    first = before - min(onset, round(0.14 * fine))
    last = before + min(offset, round(0.18 * fine))
    level = mean[max(0, first - round(0.012 * fine)) : first + 1].mean(axis=0)
    shown = max(int((mean != 0).any(axis=0).sum()), 1)
    size = np.linalg.norm(mean - level, axis=1) / np.sqrt(shown)
    end_of_t = min(AFTER, 0.75 * rr if np.isfinite(rr) else AFTER)
    t_peak, t_end = _t_wave(size, last + round(0.07 * fine), before + round(end_of_t * fine), fine)
    before_p = t_end - rr * fine if np.isfinite(t_end) and np.isfinite(rr) else 0.0
    p = _p_wave(coarse, single, first // up, round(before_p / up + 0.02 * rate), rate)
    at = (first / up, last / up, t_peak / up, t_end / up)
    return Waves(*p, *at, level)


def _falls_below(curve: np.ndarray, least: float, run: int) -> int:
    """The first index from which `curve` stays below `least` for `run` samples."""
    below = np.convolve(curve < least, np.ones(max(1, run)), "valid") >= max(1, run) - 0.5
    return int(below.argmax()) if below.any() else len(curve) - 1


def _t_wave(size: np.ndarray, start: int, stop: int, rate: int) -> tuple[float, float]:
    """Peak and end of T in the curve `size` [W]."""
    stop = min(stop, len(size))
    if stop - start < round(0.06 * rate):
        return np.nan, np.nan
    peak = start + int(size[start:stop].argmax())
    limit = min(len(size), peak + round(0.20 * rate))
    fall = np.diff(size[peak:limit])
    if len(fall) < 2 or size[peak] < 0.02 or fall.min() >= 0:
        return float(peak), np.nan
    steepest = peak + int(fall.argmin())
    ground = size[steepest:limit].min()
    end = steepest + 0.5 + ((size[steepest] + size[steepest + 1]) / 2 - ground) / -fall.min()
    end += _AFTER_TANGENT * rate
    return float(peak), float(end) if end < len(size) else np.nan


def _p_wave(
    mean: np.ndarray, single: np.ndarray, first: int, after: int, rate: int
) -> tuple[float, float]:
    """Onset and offset of P before a QRS complex that begins at `first`, and `after` the T wave of
    the beat before."""
    start, stop = max(0, after, first - round(0.28 * rate)), first - round(0.02 * rate)
    if stop - start < round(0.08 * rate):
        return np.nan, np.nan
    part = mean[start:stop]
    ground = np.median(part, axis=0)
    shown = max(int((mean != 0).any(axis=0).sum()), 1)
    size = np.linalg.norm(part - ground, axis=1) / np.sqrt(shown)
    # The end of a T wave at a high rate falls from the start on: it is no P wave.
    peak = int(size[round(0.03 * rate) :].argmax()) + round(0.03 * rate)
    near = slice(max(0, peak - round(0.05 * rate)), peak + round(0.05 * rate))
    alike = np.mean(_correlation(single[:, start:stop][:, near], part[near]))
    if size[peak] < _P_LEAST or alike < _P_ALIKE or size[peak] < 1.15 * size[0]:
        return np.nan, np.nan
    ends = []
    for way in (-1, 1):
        side = size[: peak + 1][::-1] if way < 0 else size[peak:]
        side = side[: round(0.12 * rate)]
        fall = np.diff(side)
        if len(fall) < 2 or fall.min() >= 0:
            return np.nan, np.nan
        steepest = int(fall.argmin())
        low = side[steepest:].min()
        reach = steepest + 0.5 + ((side[steepest] + side[steepest + 1]) / 2 - low) / -fall.min()
        ends.append(start + peak + way * reach)
    return float(ends[0]), float(ends[1])


def _intervals(rr: np.ndarray, usual: float, waves: Waves, rate: int) -> dict[str, float]:
    """`rr` are the intervals between usual beats in s, `usual` the median of all."""
    qt = (waves.t_end - waves.qrs_onset) / rate
    return {
        "heart_rate": 60 / usual,
        "sdnn": float(rr.std()) if len(rr) > 1 else np.nan,
        "rmssd": float(np.sqrt(np.mean(np.diff(rr) ** 2))) if len(rr) > 2 else np.nan,
        "pr": (waves.qrs_onset - waves.p_onset) / rate,
        "p_width": (waves.p_offset - waves.p_onset) / rate,
        "qrs": (waves.qrs_offset - waves.qrs_onset) / rate,
        "qt": qt,
        "qtc": qt / np.cbrt(usual),  # Fridericia's
    }


def _amplitudes(mean: np.ndarray, mask: np.ndarray, waves: Waves, rate: int) -> dict[str, float]:
    """Axes in the frontal plane, R, ST and T of the representative beat, in mV."""
    x = mean - waves.level
    first, last = int(waves.qrs_onset), int(waves.qrs_offset)
    found = {}
    for wave, start, stop in (
        ("p", waves.p_onset, waves.p_offset),
        ("qrs", first, last),
        ("t", last + 0.06 * rate, waves.t_end),
    ):
        there = (
            mask[[LEADS.index("I"), LEADS.index("aVF")]].all() and np.isfinite([start, stop]).all()
        )
        area = x[int(start) : int(stop) + 1].sum(axis=0) if there else np.full(12, np.nan)
        across, down = area[LEADS.index("I")], area[LEADS.index("aVF")] * 2 / np.sqrt(3)
        long = max(float(np.hypot(across, down)), 1e-9) if there else 1.0
        found[f"{wave}_axis_cos"], found[f"{wave}_axis_sin"] = across / long, down / long
    st = min(last + round(0.06 * rate), len(x) - 1)
    for group, names in GROUPS.items():
        columns = [i for i in (LEADS.index(name) for name in names) if mask[i]]
        few = x[:, columns] if columns else np.full((len(x), 1), np.nan)
        found[f"r_{group}"] = few[first : last + 1].max()
        found[f"st_{group}"] = few[st].mean()
        peak = waves.t_peak
        found[f"t_{group}"] = few[int(peak)].mean() if np.isfinite(peak) else np.nan
    return found


def _of_beats(
    windows: np.ndarray, mask: np.ndarray, waves: Waves, rate: int
) -> dict[str, np.ndarray]:
    """Of each of `windows` [B, W, 12], measured between the representative beat's boundaries."""
    first, last = int(waves.qrs_onset), int(waves.qrs_offset)
    level = windows[:, max(0, first - 2) : first + 1].mean(axis=1, keepdims=True)
    x = windows - level
    before = round(BEFORE * rate)
    around = slice(max(0, before - round(0.14 * rate)), before + round(0.18 * rate))
    speed = np.linalg.norm(np.diff(windows[:, around], axis=1), axis=2)
    fast = speed > 0.15 * speed.max(axis=1, keepdims=True)
    width = fast.shape[1] - fast[:, ::-1].argmax(axis=1) - fast.argmax(axis=1)
    vector = x[:, around] @ VCG_FROM_LEADS.T if mask[EIGHT].all() else None
    found = {"qrs": np.where(speed.max(axis=1) > 0, width / rate, np.nan)}
    nothing = np.full(len(windows), np.nan)
    if vector is None:
        found |= dict.fromkeys(("qrs_area", "qrs_x", "qrs_y", "qrs_z"), nothing)
    else:
        mean = vector.sum(axis=1)
        length = np.maximum(np.linalg.norm(mean, axis=1), 1e-9)
        found["qrs_area"] = np.linalg.norm(vector, axis=2).sum(axis=1) / rate
        for axis, column in zip("xyz", mean.T, strict=True):
            found[f"qrs_{axis}"] = column / length
    t = slice(min(last + round(0.07 * rate), windows.shape[1] - 1), windows.shape[1])
    found["t_amplitude"] = np.linalg.norm(x[:, t], axis=2).max(axis=1) / np.sqrt(mask.sum())
    return found
