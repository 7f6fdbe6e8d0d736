"""Machine-style reports in the wording of PTB-XL's: English sentences, or German without stops.

Umlauts are capital, as PTB-XL's export left them.
"""

from collections.abc import Iterable

import numpy as np

from tfds_builders.errors import RecordError
from tfds_builders.simulated.findings import CODES, check_findings

LANGUAGES = ("de", "en")

# In the order in which the machines print them: ectopic beats, rhythm, conduction, hypertrophy,
# infarction, ST and T. Leads are named only where the simulator always shows the finding.
_WORDINGS = {
    "en": {
        "PVC": ("premature ventricular contraction(s)", "premature ventricular contractions"),
        "PAC": ("premature atrial contraction(s)", "premature atrial contractions"),
        "SR": ("sinus rhythm",),
        "SBRAD": ("sinus bradycardia",),
        "STACH": ("sinus tachycardia",),
        "AFIB": ("atrial fibrillation",),
        "1AVB": ("first degree av block", "prolonged pr interval"),
        "CLBBB": (
            "left bundle branch block",
            "complete left bundle branch block",
            "left bundle branch block, this is most commonly due to    ischaemic heart disease",
        ),
        "CRBBB": ("right bundle branch block", "complete right bundle branch block"),
        "LVH": (
            "left ventricular hypertrophy",
            "voltages are high in chest leads suggesting left ventricular hypertrophy",
        ),
        "IMI": (
            "old inferior myocardial infarction",
            "q waves in ii, iii, avf consistent with old inferior    myocardial infarction",
        ),
        "ASMI": (
            "old anteroseptal myocardial infarction",
            "qs complexes in v2 consistent with old anteroseptal    myocardial infarction",
        ),
        "STE_": (
            "non-specific st elevation",
            "st segments are elevated in v2,3",
            "st segments are elevated in v1,2,3",
        ),
        "STD_": (
            "non-specific st segment depression",
            "st segments are depressed in v5,6",
            "st segments are depressed in i, v5,6",
        ),
        "INVT": (
            "t waves are inverted in v5,6",
            "t waves are inverted in i, v5,6",
            "t wave inversion in lateral leads",
        ),
    },
    "de": {
        "PVC": ("ventrikulÄre extrasystole(n)", "ventrikulÄre extrasystolen"),
        "PAC": ("supraventrikulÄre extrasystole(n)", "supraventrikulÄre extrasystolen"),
        "SR": ("sinusrhythmus",),
        "SBRAD": ("sinusbradykardie",),
        "STACH": ("sinustachykardie",),
        "AFIB": ("vorhofflimmern", "vorhofflimmern/-flattern"),
        "1AVB": ("a-v block i", "av-block 1. grades", "av-block i. grades"),
        "CLBBB": ("linksschenkelblock", "vollstÄndiger linksschenkelblock"),
        "CRBBB": ("rechtsschenkelblock", "vollstÄndiger rechtsschenkelblock"),
        "LVH": ("linkshypertrophie", "linksventrikulÄre hypertrophie"),
        "IMI": (
            "qrs(t) abnormal    inferiorer infarkt     wahrscheinlich alt",
            "qrs(t) abnorm    inferiorer infarkt     alter unbest.",
            "chronischer inferiorer infarkt",
        ),
        "ASMI": (
            "qrs(t) abnormal    anteroseptaler infarkt     wahrscheinlich alt",
            "qrs(t) abnorm    anteroseptaler infarkt     alter unbest.",
            "chronischer anteroseptaler infarkt",
        ),
        "STE_": ("st-hebung in v1-3", "st-hebung in v2,3", "st-hebung in v2"),
        "STD_": ("st-senkung in v5,6", "st-senkung in i, v5,6", "st-senkung in v5-6"),
        "INVT": ("t negativ in i, v5,6", "t neg in v5-6", "neg. t in v5,6"),
    },
}
_TOGETHER = {
    "en": "st segments are depressed and t waves inverted in i,    v5,6",
    "de": "st-senkung und t negativ in i, v5,6",
}
_NORMAL = {"en": "normal ecg", "de": "normales ekg"}
_OTHERWISE = {"en": "otherwise normal ecg", "de": "sonst normales ekg"}
_ABNORMAL = {"en": "abnormal ecg", "de": "pathologisches ekg"}
_SEPARATOR = {"en": ". ", "de": " "}


def report(rng: np.random.Generator, findings: Iterable[str], language: str | None = None) -> str:
    """Writes a report that states every finding, in `language` ("de", "en") or in one drawn.

    Raises RecordError for another language, for findings that `check_findings` refuses, and for a
    paced rhythm, which has no wording.
    """
    found = check_findings(findings)
    if language not in (None, *LANGUAGES):
        raise RecordError(f"no reports in language {language!r}; known are {LANGUAGES}")
    if unworded := found - set(CODES):
        raise RecordError(f"no wording for {sorted(unworded)}")
    language = language or str(rng.choice(LANGUAGES, p=(0.6, 0.4)))
    wordings = _WORDINGS[language]
    phrases = {code: str(rng.choice(wordings[code])) for code in wordings if code in found}
    if {"STD_", "INVT"} <= found and rng.random() < 0.5:
        phrases["STD_"] = _TOGETHER[language]
        del phrases["INVT"]
    lines = list(phrases.values())
    if "NORM" in found:
        lines.append(_NORMAL[language] if "SR" in found else _OTHERWISE[language])
    elif rng.random() < 0.25:
        lines.append(_ABNORMAL[language])
    text = _SEPARATOR[language].join(lines)
    return f"{text}." if language == "en" else text
