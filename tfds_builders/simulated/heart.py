"""A beat as Gaussian waves on the heart dipole, and the patient who projects it to the leads.

The dipole lives in Frank's axes, in mV: X to the left, Y to the feet, Z to the back. Waves on the
three axes follow Sameni et al. 2007 (doi:10.1155/2007/43407), the single-lead form McSharry et al.
2003 (doi:10.1109/TBME.2003.808805).
"""

import dataclasses

import numpy as np

# Dower's lead field, mV of lead per mV of Frank's X, Y, Z: Dower, Machado & Osborne 1980
# (doi:10.1002/clc.1980.3.2.87). The other four limb leads follow from I and II.
INDEPENDENT_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
DOWER = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)

# What a wave's centre is counted from.
P_ONSET, QRS_ONSET, T_END = 0, 1, 2

_LONGEST_PR_S = {"STACH": 0.250, "SR": 0.280, "SBRAD": 0.320}


@dataclasses.dataclass(frozen=True)
class Patient:
    """What stays the same from one recording of a patient to the next."""

    lead_field: np.ndarray  # [8, 3] mV per mV of dipole, rows as INDEPENDENT_LEADS
    rotation: np.ndarray  # [3, 3] the heart's position in the chest
    qrs_s: float
    pr_s: float
    qtc_s: float  # QT at 60 beats per minute (Fridericia)
    p_gain: float
    qrs_gains: np.ndarray  # [5] strength of the five vectors of the QRS loop
    t_gain: float
    traits: int  # seed of how this patient shows a finding


@dataclasses.dataclass(frozen=True)
class Beat:
    """One kind of beat: W Gaussian waves, each with a width before and after its peak."""

    symbol: str  # MIT-BIH annotation code
    anchor: np.ndarray  # [W] P_ONSET, QRS_ONSET or T_END
    centre: np.ndarray  # [W] seconds after the anchor
    rise: np.ndarray  # [W] standard deviation before the peak, seconds
    fall: np.ndarray  # [W] and after it
    vector: np.ndarray  # [W, 3] mV
    qrs_s: float
    pr_s: float  # NaN without a P wave
    r_s: float  # peak of the QRS loop, seconds after QRS onset


def rotation(frontal: float, horizontal: float) -> np.ndarray:
    """Turns the heart by degrees: clockwise in the frontal plane, then backwards from the left."""
    a, b = np.deg2rad((frontal, horizontal))
    about_z = [[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]
    about_y = [[np.cos(b), 0, -np.sin(b)], [0, 1, 0], [np.sin(b), 0, np.cos(b)]]
    return np.array(about_y) @ np.array(about_z)


def draw_patient(rng: np.random.Generator) -> Patient:
    """Draws anatomy (axis, rotation, torso, amplitudes) and normal intervals."""
    field = DOWER * rng.lognormal(0, 0.12, (8, 1)) + rng.normal(0, 0.04, (8, 3))
    return Patient(
        lead_field=field,
        rotation=rotation(
            np.clip(rng.normal(-3, 17), -38, 32), np.clip(rng.normal(0, 10), -22, 22)
        ),
        qrs_s=rng.uniform(0.082, 0.104),
        pr_s=rng.uniform(0.130, 0.184),
        qtc_s=np.clip(rng.normal(0.405, 0.014), 0.370, 0.435),
        p_gain=rng.lognormal(0, 0.22),
        qrs_gains=rng.lognormal(-0.02, 0.22) * rng.lognormal(0, 0.16, 5),
        t_gain=rng.lognormal(0, 0.22),
        traits=int(rng.integers(2**32)),
    )


def sinus_beat(patient: Patient, findings: frozenset[str]) -> Beat:
    """The conducted beat of a patient with these findings (an `A` once its P wave is moved)."""
    rng = np.random.default_rng([patient.traits, 1])
    pr_s = patient.pr_s
    if "1AVB" in findings:
        # The faster the rate, the sooner a long PR puts P on the T wave before it.
        longest = next(pr for rhythm, pr in _LONGEST_PR_S.items() if rhythm in findings)
        pr_s = rng.uniform(0.216, longest)
    if "CLBBB" in findings:
        symbol, (qrs_s, qrs) = "L", _left_bundle_branch_block(rng, patient)
    else:
        symbol, (qrs_s, qrs) = "N", _normal_qrs(rng, patient, findings)
    if "CRBBB" in findings:
        symbol = "R"
        qrs_s, qrs = _add_right_bundle_branch_block(rng, qrs_s, qrs)
    if symbol != "L":
        qrs = _to_voltage(rng, qrs, patient, "LVH" in findings)
    waves = qrs + _repolarisation(rng, patient, findings, qrs_s)
    if "AFIB" in findings:
        pr_s = np.nan
    else:
        waves += _p_wave(patient)
    return _beat(symbol, waves, qrs_s, pr_s)


def atrial_ectopic(patient: Patient, beat: Beat) -> Beat:
    """The beat after a premature atrial impulse: a P wave from elsewhere, the same QRS."""
    rng = np.random.default_rng([patient.traits, 2])
    vector = beat.vector.copy()
    scale = np.array((rng.uniform(0.2, 0.8), rng.uniform(-1.1, 0.4), rng.uniform(0.8, 1.6)))
    vector[beat.anchor == P_ONSET] *= scale
    return dataclasses.replace(beat, symbol="A", vector=vector)


def ventricular_ectopic(patient: Patient) -> Beat:
    """A broad QRS without P wave, from the right or the left ventricle, its T opposed to it."""
    rng = np.random.default_rng([patient.traits, 3])
    qrs_s = rng.uniform(0.135, 0.165)
    towards = np.array((0.75, rng.uniform(-0.8, 0.9), 1.0))  # from the right ventricle
    if rng.random() < 0.45:
        towards *= (-0.8, 1.0, -1.0)
    towards *= rng.uniform(1.1, 1.8) / np.linalg.norm(towards)
    turn = rng.normal(0, 0.25, (2, 3))
    qrs = [
        (QRS_ONSET, 0.34 * qrs_s, 0.125 * qrs_s, None, towards * 0.8 + turn[0]),
        (QRS_ONSET, 0.57 * qrs_s, 0.120 * qrs_s, None, towards * 0.8 + turn[1]),
        (QRS_ONSET, 0.80 * qrs_s, 0.075 * qrs_s, None, -0.15 * towards - turn[0]),
    ]
    return _beat("V", qrs + _opposed_repolarisation(towards, qrs_s), qrs_s, np.nan)


def paced_beat(patient: Patient) -> Beat:
    """Paced at the apex of the right ventricle: a spike, then a broad QRS to the left and up."""
    rng = np.random.default_rng([patient.traits, 4])
    qrs_s = rng.uniform(0.145, 0.170)
    towards = np.array((0.6, -0.9, 1.0)) * rng.uniform(0.6, 0.9)
    qrs = [
        (QRS_ONSET, 0.004, 0.0015, None, 2.0 * towards),
        (QRS_ONSET, 0.36 * qrs_s, 0.125 * qrs_s, None, towards),
        (QRS_ONSET, 0.62 * qrs_s, 0.125 * qrs_s, None, towards * (0.9, 0.9, 0.7)),
    ]
    return _beat("/", qrs + _opposed_repolarisation(towards, qrs_s), qrs_s, np.nan)


def _normal_qrs(rng, patient, findings):
    """Five vectors in turn: septum, anterior wall, free wall, base, outflow tracts."""
    septal, anterior, free_wall, basal, outflow = patient.qrs_gains[:, None] * [
        [-0.12, 0.02, -0.22],
        [0.25, 0.15, -0.45],
        [1.05, 0.75, 0.10],
        [0.15, 0.10, 0.85],
        [-0.12, -0.15, 0.25],
    ]
    if "LVH" in findings:
        free_wall, basal = free_wall * (1.3, 0.9, 1.5), basal * 1.3
    loop = np.stack((septal, anterior, free_wall, basal, outflow)) @ patient.rotation.T
    shift = np.zeros(5)
    if "ASMI" in findings:  # no forces to the front: QS in V1 and V2
        loop[0] = rng.uniform(0.8, 1.2) * np.array((0.05, 0.05, 0.30))
        loop[1] = rng.uniform(0.8, 1.2) * np.array((0.15, 0.10, 0.55))
        loop[2] *= (0.8, 1.0, 1.0)
        loop[2, 2] = max(loop[2, 2], 0.25) + 0.10
    if "IMI" in findings:  # the first 40 ms point away from the diaphragm: Q in II, III, aVF
        depth = rng.uniform(0.9, 1.3)
        loop[0, :2] = depth * np.array((0.08, -0.30))
        loop[1, :2] = depth * np.array((0.25, -0.62))
        loop[2, 1] = rng.uniform(0.35, 0.60)
        shift = np.array((0.02, 0.03, 0.09, 0.03, 0.0))
    qrs_s = patient.qrs_s + 0.006 * bool({"LVH", "IMI"} & findings)
    centres = (np.array((0.22, 0.36, 0.50, 0.66, 0.80)) + shift) * qrs_s
    widths = np.array((0.080, 0.090, 0.095, 0.095, 0.072)) * qrs_s
    return qrs_s, [
        (QRS_ONSET, centre, width, None, vector)
        for centre, width, vector in zip(centres, widths, loop, strict=True)
    ]


def _left_bundle_branch_block(rng, patient):
    """Slow activation from right to left and back: no septal q, notched R in I, V5 and V6."""
    qrs_s = rng.uniform(0.132, 0.165)
    gain = np.clip(patient.qrs_gains.mean(), 0.75, 1.3)
    turn = rotation(*rng.uniform((-15, -8), (15, 8)))
    loop = gain * np.array(
        [[0.10, 0.10, 0.10], [0.78, 0.15, 1.20], [0.95, -0.15, 1.00], [0.05, -0.10, 0.25]]
    )
    centres, widths = (0.16, 0.36, 0.66, 0.82), (0.060, 0.120, 0.118, 0.068)
    return qrs_s, [
        (QRS_ONSET, centre * qrs_s, width * qrs_s, None, turn @ vector)
        for centre, width, vector in zip(centres, widths, loop, strict=True)
    ]


def _add_right_bundle_branch_block(rng, qrs_s, qrs):
    """Adds the right ventricle's late activation: R' in V1, broad S in I and V6."""
    late = rng.uniform(0.85, 1.25) * np.array((-0.55, -0.05 + rng.normal(0, 0.1), -0.80))
    total = rng.uniform(0.134, 0.158)
    qrs = [(*wave[:4], wave[4] * (1, 1, 0.55) if i >= 3 else wave[4]) for i, wave in enumerate(qrs)]
    rest = total - 0.80 * qrs_s
    qrs.append((QRS_ONSET, total - 0.62 * rest, 0.24 * rest, 0.23 * rest, late))
    return total, qrs


def _to_voltage(rng, qrs, patient, hypertrophy):
    """Scales the loop so that Sokolow-Lyon's index says hypertrophy (> 3.5 mV) or not."""
    least = 2.2 if hypertrophy else 1.2
    index = _sokolow_lyon(qrs, patient)
    qrs = _scale(qrs, np.clip(index, least, 3.1) / index)
    if hypertrophy:  # the left ventricle grows to the left and the back
        target = rng.uniform(3.8, 5.2)
        for _ in range(3):
            growth = target / _sokolow_lyon(qrs, patient)
            qrs = _scale(qrs, (growth, 1.0, growth))
    return qrs


def _sokolow_lyon(qrs, patient):
    """S in V1 plus the larger R of V5 and V6, mV."""
    leads = _loop(qrs) @ patient.lead_field.T
    return leads[:, 6:].max() - leads[:, 2].min()


def _scale(qrs, factor):
    return [(*wave[:4], wave[4] * factor) for wave in qrs]


def _repolarisation(rng, patient, findings, qrs_s):
    """ST segment and T wave; a branch block's own T wave is opposed to the late QRS."""
    # T follows the heart's position half as far as QRS.
    t = patient.t_gain * (patient.rotation + np.eye(3)) / 2 @ (0.30, 0.22, -0.25)
    st = np.array((0.01, 0.01, -0.025))
    if "CLBBB" in findings:
        t, st = np.array((-0.24, 0.0, -0.36)), np.array((-0.04, 0.0, -0.09))
    if "CRBBB" in findings:
        t[2] = rng.uniform(0.10, 0.18)
    if "LVH" in findings:
        t = t * 1.25
    if "IMI" in findings:
        t[1] = 0.03
    if "ASMI" in findings:
        t[2] = min(t[2] + 0.15, 0.0)
    if "STE_" in findings:
        st = rng.uniform(1.1, 1.9) * np.array((0.04, 0.04, -0.20))
    if "STD_" in findings:
        st = rng.uniform(1.0, 1.7) * np.array((-0.18, -0.06, 0.05))
    if "INVT" in findings:
        t = rng.uniform(0.8, 1.5) * np.array((-0.32, -0.08, rng.uniform(-0.02, 0.12)))
    return [_st_segment(st, qrs_s), *_t_wave(t)]


def _opposed_repolarisation(towards, qrs_s):
    return [_st_segment(-0.12 * towards, qrs_s), *_t_wave(-0.42 * towards)]


def _st_segment(vector, qrs_s):
    return (QRS_ONSET, qrs_s + 0.055, 0.028, 0.080, vector)


def _t_wave(vector):
    """A slow rise and a steeper fall; widths hold at QT 400 ms and go with QT."""
    return [(T_END, -0.086, 0.052, 0.036, vector)]


def _p_wave(patient):
    """The right atrium, to the front, then the left, to the back; 100 ms in all."""
    right, left = np.array((0.03, 0.07, -0.05)), np.array((0.07, 0.06, 0.05))
    return [
        (P_ONSET, 0.036, 0.014, None, patient.p_gain * right),
        (P_ONSET, 0.064, 0.015, None, patient.p_gain * left),
    ]


def _loop(qrs):
    """The dipole at 1 kHz over the QRS waves: float [T, 3]."""
    time = np.arange(0, 0.2, 0.001)[:, None]
    centre, rise, vector = (np.array([wave[i] for wave in qrs]) for i in (1, 2, 4))
    return np.exp(-0.5 * ((time - centre) / rise) ** 2) @ vector


def _beat(symbol, waves, qrs_s, pr_s):
    anchor, centre, rise = (np.array([wave[i] for wave in waves]) for i in range(3))
    fall = np.array([wave[2] if wave[3] is None else wave[3] for wave in waves])
    qrs = [w for w in waves if w[0] == QRS_ONSET and 0.01 < w[1] < qrs_s]
    r_s = 0.001 * np.argmax(np.linalg.norm(_loop(qrs), axis=1))
    vector = np.stack([wave[4] for wave in waves])
    return Beat(symbol, anchor, centre, rise, fall, vector, float(qrs_s), float(pr_s), float(r_s))
