"""From findings to a recording: draw the rhythm, lay the beats, project, add noise, digitise."""

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np
import scipy.signal

from tfds_builders.errors import RecordError
from tfds_builders.leads import LEADS
from tfds_builders.simulated import heart
from tfds_builders.simulated.findings import check_findings
from tfds_builders.simulated.rhythm import Rhythm, draw_rhythm

ELECTRODES = ("RA", "LA", "LL", "C1", "C2", "C3", "C4", "C5", "C6")


def _twelve_from_eight() -> np.ndarray:
    """Einthoven's III = II - I and Goldberger's augmented leads, [12, 8] in the order of LEADS."""
    one, two, *chest = np.eye(8)
    rows = dict(zip(heart.INDEPENDENT_LEADS[2:], chest, strict=True))
    rows |= {"I": one, "II": two, "III": two - one}
    rows |= {"aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    return np.stack([rows[lead] for lead in LEADS])


def _eight_from_electrodes() -> np.ndarray:
    """Limb leads I and II, and V1-V6 against Wilson's central terminal, [8, 9]."""
    ra, la, ll, *chest = np.eye(9)
    return np.stack([la - ra, ll - ra, *(c - (ra + la + ll) / 3 for c in chest)])


TWELVE_FROM_EIGHT = _twelve_from_eight()
EIGHT_FROM_ELECTRODES = _eight_from_electrodes()


@dataclasses.dataclass(frozen=True)
class Simulated:
    """A simulated recording.

    potentials: float64 [T, 12] microvolts in the order of LEADS, before rounding.
    beats: sample numbers of the QRS peaks, int64 [B], and MIT-BIH beat codes, str [B].
    fiducials: per beat, seconds from the start, float64 [B]: p_onset, p_offset (NaN without a
        P wave), qrs_onset, r, qrs_offset, t_end.
    """

    potentials: np.ndarray
    beats: tuple[np.ndarray, np.ndarray]
    fiducials: dict[str, np.ndarray]
    findings: frozenset[str]
    rate_hz: float

    @property
    def ecg_uv(self) -> np.ndarray:
        """int16 [T, 12] microvolts."""
        return np.clip(np.rint(self.potentials), -32_767, 32_767).astype(np.int16)


def simulate(
    rng: np.random.Generator,
    *,
    findings: Iterable[str],
    rate_hz: float = 500,
    seconds: float = 10.0,
    patient: heart.Patient | None = None,
    noise: float = 1.0,
) -> Simulated:
    """Simulates one recording that shows the findings.

    `patient` is drawn unless given; `noise` scales baseline wander, mains hum and muscle noise
    (0: none, all else the same). Raises RecordError for findings that `check_findings` refuses, a
    rate below 50 Hz, or a recording shorter than 6 s.
    """
    findings = check_findings(findings)
    if rate_hz < 50 or seconds < 6:
        raise RecordError(f"cannot simulate {seconds} s at {rate_hz} Hz: at least 6 s at 50 Hz")
    patient = patient or heart.draw_patient(rng)
    rhythm = draw_rhythm(rng, findings, seconds)
    kinds = {str(kind): _beat_of(kind, patient, findings) for kind in np.unique(rhythm.kind)}
    samples = round(seconds * rate_hz)
    qt_s = _qt(patient, rhythm, kinds)
    dipole = np.zeros((samples, 3))
    for kind, beat in kinds.items():
        chosen = rhythm.kind == kind
        gain = _gains(rng, rhythm.onset[chosen])
        _lay(dipole, beat, rhythm.onset[chosen], qt_s[chosen], gain, rate_hz)
    if "AFIB" in findings:
        dipole += _fibrillation(rng, samples, rate_hz)
    eight = 1000 * dipole @ patient.lead_field.T
    eight += noise * draw_noise(rng, samples, rate_hz)
    beats, fiducials = _annotate(rhythm, kinds, qt_s, rate_hz, samples)
    return Simulated(eight @ TWELVE_FROM_EIGHT.T, beats, fiducials, findings, rate_hz)


def _beat_of(kind: str, patient: heart.Patient, findings: frozenset[str]) -> heart.Beat:
    if kind == "V":
        return heart.ventricular_ectopic(patient)
    if kind == "/":
        return heart.paced_beat(patient)
    conducted = heart.sinus_beat(patient, findings)
    return heart.atrial_ectopic(patient, conducted) if kind == "A" else conducted


def draw_noise(rng: np.random.Generator, samples: int, rate_hz: float) -> np.ndarray:
    """Baseline wander, mains hum and muscle noise, independent at each electrode.

    Returns float64 [T, 8] microvolts in `heart.INDEPENDENT_LEADS`.
    """
    time = np.arange(samples)[:, None] / rate_hz
    wander_hz = np.concatenate([rng.uniform(0.05, 0.16, 3), rng.uniform(0.18, 0.40, 2)])
    swing = rng.lognormal(np.log(18), 0.7) * rng.normal(0, 1, (5, 9))
    total = np.cos(2 * np.pi * (time * wander_hz + rng.random(5))) @ swing
    mains_hz = rng.choice((50.0, 60.0)) + rng.normal(0, 0.03)
    hum = rng.lognormal(np.log(3), 0.9) * rng.lognormal(0, 0.4, (2, 9)) * rng.choice((-1, 1), 9)
    if mains_hz < 0.45 * rate_hz:  # otherwise the recorder's low-pass has removed it
        phase = 2 * np.pi * (time * mains_hz + rng.random())
        total += np.concatenate([np.cos(phase), 0.3 * np.sin(phase)], axis=1) @ hum
    muscle = rng.lognormal(np.log(9), 0.6) * rng.lognormal(0, 0.35, 9)
    swell = 1 + 0.5 * np.sin(2 * np.pi * (time * rng.uniform(0.05, 0.3) + rng.random()))
    white = rng.standard_normal((samples, 9)) * np.sqrt(rate_hz / 500)
    total += muscle * swell * scipy.signal.sosfilt(_muscle_band(rate_hz), white, axis=0)
    return total @ EIGHT_FROM_ELECTRODES.T


@functools.lru_cache
def _muscle_band(rate_hz):
    return scipy.signal.butter(2, (15, _cutoff(rate_hz)), "bandpass", fs=rate_hz, output="sos")


def _cutoff(rate_hz):
    """The recorder's low-pass: 150 Hz, as AHA/ACC/HRS ask, or what the rate allows."""
    return min(150.0, 0.4 * rate_hz)


def _qt(patient, rhythm, kinds):
    """QT per beat, seconds [B]: Fridericia's cube root of a slowly following RR."""
    rr = 0.75 * rhythm.rr_mean + 0.25 * rhythm.rr
    qt_s = patient.qtc_s * np.cbrt(np.clip(rr, 0.35, 1.6))
    widening = {kind: max(0.0, 0.6 * (beat.qrs_s - 0.1)) for kind, beat in kinds.items()}
    return qt_s + np.array([widening[kind] for kind in rhythm.kind])


def _gains(rng, onset):
    """Beat-to-beat variation, [B]: breathing moves the heart, and a little is left over."""
    breath = np.sin(2 * np.pi * (onset * rng.uniform(0.18, 0.33) + rng.random()))
    return 1 + rng.uniform(0.005, 0.05) * breath + rng.normal(0, 0.012, len(onset))


def _lay(dipole, beat: heart.Beat, onset, qt_s, gain, rate_hz):
    """Adds the beats at `onset` to the dipole [T, 3] in place."""
    lead_in = 0.08 + (0 if np.isnan(beat.pr_s) else beat.pr_s)
    anchors = np.stack([onset - np.nan_to_num(beat.pr_s), onset, onset + qt_s], axis=1)  # [B, 3]
    centre = anchors[:, beat.anchor] + beat.centre * _stretch(beat, qt_s)
    # A Gaussian low-pass only widens a Gaussian wave and lowers it in proportion.
    blur = np.sqrt(np.log(2)) / (2 * np.pi * _cutoff(rate_hz))
    sharp = np.stack([beat.rise, beat.fall])[:, None] * _stretch(beat, qt_s)  # [2, B, W]
    rise, fall = np.hypot(sharp, blur)
    height = gain[:, None] * sharp.sum(0) / (rise + fall)
    for b in range(len(onset)):
        first = max(0, int((onset[b] - lead_in) * rate_hz))
        last = min(len(dipole), int((onset[b] + qt_s[b] + 0.12) * rate_hz))
        if first >= last:
            continue
        away = np.arange(first, last)[:, None] / rate_hz - centre[b]
        waves = np.exp(-0.5 * (away / np.where(away < 0, rise[b], fall[b])) ** 2)
        dipole[first:last] += (waves * height[b]) @ beat.vector


def _stretch(beat, qt_s):
    """T waves are drawn at QT 400 ms and go with QT: [B, W]."""
    return np.where(beat.anchor == heart.T_END, qt_s[:, None] / 0.4, 1.0)


def _fibrillation(rng, samples, rate_hz):
    """f waves, 4.5-8 Hz, with slowly wandering rate and size, largest in V1: [T, 3] mV."""
    time = np.arange(samples) / rate_hz
    slow = 2 * np.pi * (rng.uniform(0.1, 0.7, (3, 1)) * time + rng.random((3, 1)))
    phase = 2 * np.pi * rng.uniform(4.5, 8.0) * time + 1.2 * np.sin(slow[:2]).sum(0)
    shape = np.sin(phase) + 0.35 * np.sin(2 * phase + 0.8)
    towards = np.array((-0.25, 0.5, -0.8)) + rng.normal(0, 0.15, 3)
    size = rng.uniform(0.05, 0.14) * (1 + 0.35 * np.sin(slow[2]))
    return (size * shape)[:, None] * towards


def _annotate(rhythm: Rhythm, kinds, qt_s, rate_hz, samples):
    """Beats whose QRS peak lies in the recording, and their boundaries."""
    of_kind = {
        name: np.array([getattr(kinds[kind], name) for kind in rhythm.kind])
        for name in ("r_s", "pr_s", "qrs_s", "symbol")
    }
    peak = np.rint((rhythm.onset + of_kind["r_s"]) * rate_hz).astype(np.int64)
    kept = (peak > 0) & (peak < samples)  # on the first sample it would be no peak
    fiducials = {
        "p_onset": rhythm.onset - of_kind["pr_s"],
        "p_offset": rhythm.onset - of_kind["pr_s"] + 0.100,
        "qrs_onset": rhythm.onset,
        "r": rhythm.onset + of_kind["r_s"],
        "qrs_offset": rhythm.onset + of_kind["qrs_s"],
        "t_end": rhythm.onset + qt_s,
    }
    beats = peak[kept], of_kind["symbol"][kept]
    return beats, {name: value[kept] for name, value in fiducials.items()}
