"""What the lines of a machine's report are read as."""

import pytest

from ecg_jax.data.classes import SUPERCLASS, TASKS
from tfds_builders.mimic_iv_ecg import read, statements

LINES = {
    "Sinus rhythm with PAC(s)": {"SR": 3, "PAC": 3},
    "Sinus rhythm with borderline 1st degree A-V block": {"SR": 3},
    "Possible inferior infarct - age undetermined": {"IMI": 1},
    "Probable left ventricular hypertrophy": {"LVH": 2},
    "No evidence of inferior infarct": {},
    "Poor R wave progression - cannot rule out anteroseptal infarct": {"ASMI": 1},
    "Inferior/lateral infarct, possibly acute": {"ILMI": 3},
    "Lateral ST-T changes are nonspecific": {"NST_": 3, "NDT": 3},
    "Lateral ST-T changes may be due to myocardial ischemia": {"ISCLA": 1},
    "Abnormal T, consider ischemia, lateral leads": {"ISCLA": 1},
    "RBBB with left anterior fascicular block": {"CRBBB": 3, "LAFB": 3},
    "Incomplete right bundle branch block": {"IRBBB": 3},
    "RSR'(V1) - probable normal variant": {},
    "ST elev, probable normal early repol pattern": {},
    "*** Consider ACUTE ST ELEVATION MI ***": {"super:MI": 1, "STE_": 1},
    "Supraventricular tachycardia": {"SVTAC": 3},
    "Ventricular tachycardia": {},
    "Supraventricular bigeminy": {"BIGU": 3, "PAC": 3},
    "Atrial flutter with 2:1 A-V block": {"AFLT": 3},
    "Pacemaker rhythm - no further analysis": {"PACE": 3},
    "Left axis deviation": {},
    "ST-T changes are probably due to ventricular hypertrophy": {},
    "Normal ECG except for rate.": {"NORM": 3},
    "Abnormal ECG": {},
}


@pytest.mark.parametrize("line", LINES)
def test_statements(line):
    report = statements.read_report([line])
    assert report.certainty == LINES[line] and not report.flags and report.text


@pytest.mark.parametrize(
    ("line", "flag"),
    [
        ("All 12 leads are missing", "leads_missing"),
        ("Uncertain rhythm: review", "uncertain_rhythm"),
        ("--- Recording unsuitable for analysis - please repeat ---", "unsuitable"),
        ("--- Warning: Data quality may affect interpretation ---", "quality"),
        ("--- Suspect arm lead reversal - only aVF, V1-V6 analyzed ---", "reversal"),
        ("--- Suspect limb lead reversal - only V1-V6 analyzed ---", "reversal"),
        ("Poor quality data, interpretation may be affected", "quality"),
        ("--- something new ---", "notice"),
    ],
)
def test_lines_that_are_no_findings(line, flag):
    report = statements.read_report(["Sinus rhythm", "", line])
    assert report.text == "Sinus rhythm." and report.flags == {flag}


def test_classes_agree_with_those_of_the_datasets_that_they_map_to():
    own = statements.classes_of("super")
    assert {code: group for code, group in own.items() if group} == {
        code: SUPERCLASS[code] for code in own if code in SUPERCLASS
    }
    tasks = TASKS["mimic_iv_ecg"]
    assert {name: set(task.classes) for name, task in tasks.items()} == {
        name: set(classes) for name, classes in read.classes().items()
    }
    assert set(statements.classes_of("cpsc").values()) - {""} <= set(statements.CPSC)
    assert statements.cpsc_classes({"NORM", "SR"}) == {"Normal"}
    assert statements.cpsc_classes({"NORM", "SBRAD"}) == set()
    assert statements.cpsc_classes({"SR", "NORM", "1AVB"}) == {"I-AVB"}
