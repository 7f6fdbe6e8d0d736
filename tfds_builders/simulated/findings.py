"""The findings a simulated record can carry, which go together, and how often they occur."""

from collections.abc import Iterable

import numpy as np

from tfds_builders.errors import RecordError

# PTB-XL's SCP-ECG codes, so that one set of prompts serves both datasets.
DESCRIPTIONS = {
    "SR": "sinus rhythm",
    "SBRAD": "sinus bradycardia",
    "STACH": "sinus tachycardia",
    "AFIB": "atrial fibrillation",
    "PAC": "atrial premature complex",
    "PVC": "ventricular premature complex",
    "1AVB": "first degree AV block",
    "CLBBB": "complete left bundle branch block",
    "CRBBB": "complete right bundle branch block",
    "STE_": "non-specific ST elevation",
    "STD_": "non-specific ST depression",
    "INVT": "inverted T-waves",
    "LVH": "left ventricular hypertrophy",
    "IMI": "inferior myocardial infarction",
    "ASMI": "anteroseptal myocardial infarction",
    "NORM": "normal ECG",
}
CODES = tuple(DESCRIPTIONS)

# PTB-XL's diagnostic_class. ST/T findings are form statements there and have none of their own;
# their class here is that of the statement usually made with them (NST_, NDT, ISC_: STTC).
SUPERCLASS = {
    "NORM": "NORM",
    "IMI": "MI",
    "ASMI": "MI",
    "STE_": "STTC",
    "STD_": "STTC",
    "INVT": "STTC",
    "1AVB": "CD",
    "CLBBB": "CD",
    "CRBBB": "CD",
    "LVH": "HYP",
}
SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")

SINUS = ("SR", "SBRAD", "STACH")
# A paced rhythm can be simulated (MIT-BIH has four such records) but is never drawn.
RHYTHMS = (*SINUS, "AFIB", "PACE")

# Pairs that exclude each other, or whose second member cannot be read beside the first.
_INCOMPATIBLE = {
    "AFIB": {"PAC", "1AVB"},
    "PACE": {"PAC", "1AVB", "NORM", "CLBBB", "CRBBB", "STE_", "STD_", "INVT", "LVH", "IMI", "ASMI"},
    "CLBBB": {"CRBBB", "STE_", "STD_", "INVT", "LVH", "IMI", "ASMI"},
    "CRBBB": {"LVH", "STE_"},
    "STE_": {"STD_"},
    "NORM": set(CODES) - {*SINUS, "NORM"},
}

# How often each finding is drawn relative to the others, set so that every class
# reaches at least 5 % of records although some exclude many others.
_WEIGHTS = {
    "PAC": 1.2,
    "PVC": 1.0,
    "1AVB": 1.1,
    "CLBBB": 1.6,
    "CRBBB": 1.1,
    "STE_": 1.2,
    "STD_": 1.1,
    "INVT": 1.0,
    "LVH": 1.2,
    "IMI": 1.0,
    "ASMI": 1.1,
}


def compatible(a: str, b: str) -> bool:
    """Whether one recording can show both findings."""
    if a in RHYTHMS and b in RHYTHMS:
        return a == b
    return b not in _INCOMPATIBLE.get(a, ()) and a not in _INCOMPATIBLE.get(b, ())


def check_findings(findings: Iterable[str]) -> frozenset[str]:
    """Returns the findings as a set.

    Raises RecordError for an unknown code, for none or several rhythms, and for a pair that one
    recording cannot show.
    """
    if isinstance(findings, str):
        raise RecordError(f"findings must be several codes, not one string: {findings!r}")
    found = frozenset(findings)
    if unknown := sorted(found - {*CODES, *RHYTHMS}):
        raise RecordError(f"unknown findings {unknown}; known are {[*CODES, 'PACE']}")
    if len(found & set(RHYTHMS)) != 1:
        raise RecordError(f"findings {sorted(found)} must hold exactly one rhythm of {RHYTHMS}")
    for a in sorted(found):
        for b in sorted(found):
            if a < b and not compatible(a, b):
                raise RecordError(f"findings {a} and {b} exclude each other")
    return found


def draw_findings(rng: np.random.Generator) -> frozenset[str]:
    """Draws a rhythm and zero to three further findings; NORM where there are none.

    Every class of `CODES` comes out in at least 5 % of draws.
    """
    if rng.random() < 0.28:
        return frozenset({str(rng.choice(SINUS, p=(0.6, 0.2, 0.2))), "NORM"})
    rhythm = str(rng.choice(("SR", "SBRAD", "STACH", "AFIB"), p=(0.42, 0.18, 0.18, 0.22)))
    found = {rhythm}
    for _ in range(rng.choice((1, 2, 3), p=(0.45, 0.38, 0.17))):
        left = [c for c in _WEIGHTS if c not in found and all(compatible(c, f) for f in found)]
        if not left:
            break
        weights = np.array([_WEIGHTS[c] for c in left])
        found.add(left[rng.choice(len(left), p=weights / weights.sum())])
    return frozenset(found)


def superclasses(findings: Iterable[str]) -> frozenset[str]:
    """PTB-XL's diagnostic superclasses of the findings (`SUPERCLASS` says how)."""
    return frozenset(SUPERCLASS[f] for f in findings if f in SUPERCLASS)
