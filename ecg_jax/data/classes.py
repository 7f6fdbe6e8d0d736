"""The classes that the datasets' tasks are made of, by name, and how PTB-XL's statements group.

PTB-XL's grouping is that of its `scp_statements.csv` (Wagner et al. 2020, table 5).
"""

from typing import NamedTuple

from ecg_jax.data import challenge

# superclass -> subclass -> the diagnostic SCP-ECG statements that count for it
_DIAGNOSTIC = {
    "NORM": {"NORM": "NORM"},
    "MI": {
        "AMI": "AMI ASMI ALMI INJAS INJAL INJLA",
        "IMI": "IMI ILMI IPMI IPLMI INJIN INJIL",
        "LMI": "LMI",
        "PMI": "PMI",
    },
    "STTC": {
        "STTC": "NDT DIG LNGQT ANEUR EL",
        "NST_": "NST_",
        "ISC_": "ISC_",
        "ISCA": "ISCAL ISCAS ISCLA ISCAN",
        "ISCI": "ISCIN ISCIL",
    },
    "CD": {
        "LAFB/LPFB": "LAFB LPFB",
        "IRBBB": "IRBBB",
        "CRBBB": "CRBBB",
        "ILBBB": "ILBBB",
        "CLBBB": "CLBBB",
        "IVCD": "IVCD",
        "WPW": "WPW",
        "_AVB": "1AVB 2AVB 3AVB",
    },
    "HYP": {
        "LVH": "LVH",
        "RVH": "RVH",
        "SEHYP": "SEHYP",
        "LAO/LAE": "LAO/LAE",
        "RAO/RAE": "RAO/RAE",
    },
}
SUPERCLASS = {
    statement: superclass
    for superclass, groups in _DIAGNOSTIC.items()
    for statements in groups.values()
    for statement in statements.split()
}
SUBCLASS = {
    statement: subclass
    for groups in _DIAGNOSTIC.values()
    for subclass, statements in groups.items()
    for statement in statements.split()
}
DIAGNOSTIC = tuple(SUPERCLASS)
# NDT, NST_, DIG and LNGQT are diagnostic statements, too.
FORM = (
    *("NDT", "NST_", "DIG", "LNGQT", "ABQRS", "PVC", "STD_", "VCLVH", "QWAVE", "LOWT"),
    *("NT_", "PAC", "LPR", "INVT", "LVOLT", "HVOLT", "TAB_", "STE_", "PRC(S)"),
)
RHYTHM = (
    *("SR", "AFIB", "STACH", "SARRH", "SBRAD", "PACE"),
    *("SVARR", "BIGU", "AFLT", "SVTAC", "PSVT", "TRIGU"),
)
STATEMENTS = tuple(dict.fromkeys((*DIAGNOSTIC, *FORM, *RHYTHM)))

# The simulator's findings; its ST/T findings count as STTC, which PTB-XL's form statements do not.
FINDINGS = (
    *("SR", "SBRAD", "STACH", "AFIB", "PAC", "PVC", "1AVB", "CLBBB", "CRBBB"),
    *("STE_", "STD_", "INVT", "LVH", "IMI", "ASMI", "NORM"),
)
FINDING_SUPERCLASS = {
    **{code: SUPERCLASS[code] for code in FINDINGS if code in SUPERCLASS},
    **dict.fromkeys(("STE_", "STD_", "INVT"), "STTC"),
}

# What a machine's lines are read as in MIMIC-IV-ECG: tfds_builders/mimic_iv_ecg/classes.tsv.
MACHINE = (
    *("NORM", "SR", "SBRAD", "STACH", "SARRH", "AFIB", "AFLT", "SVTAC", "PACE", "BIGU", "TRIGU"),
    *("PAC", "PVC", "1AVB", "2AVB", "3AVB", "LPR", "CLBBB", "CRBBB", "ILBBB", "IRBBB", "LAFB"),
    *("LPFB", "IVCD", "WPW", "LVH", "RVH", "LAO/LAE", "RAO/RAE", "VCLVH", "LVOLT", "AMI", "ASMI"),
    *("ALMI", "LMI", "IMI", "ILMI", "IPMI", "PMI", "QWAVE", "NDT", "NST_", "ISC_", "ISCAL"),
    *("ISCAN", "ISCAS", "ISCIL", "ISCIN", "ISCLA", "LNGQT", "STD_", "STE_", "INVT", "LOWT"),
)

CPSC = ("Normal", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE")
AAMI = ("N", "S", "V", "F", "Q")  # beat classes of ANSI/AAMI EC57
MIT_RHYTHM = (
    *("NSR", "AB", "AFIB", "AFL", "B", "BII", "IVR", "NOD"),
    *("P", "PREX", "SBR", "SVTA", "T", "VFL", "VT"),
)
# LUDB's rhythms and diagnoses, in PTB-XL's statements
LUDB_RHYTHM = ("SR", "SBRAD", "STACH", "SARRH", "AFIB", "AFLT")
LUDB_DIAGNOSIS = (
    *("1AVB", "3AVB", "IRBBB", "CRBBB", "ILBBB", "CLBBB", "LAFB", "IVCD"),
    *("LVH", "RVH", "LAO/LAE", "RAO/RAE", "PACE", "PAC", "PVC"),
)

# Namespaces of class codes, which are the sections of prompts.toml: AMI is one class as a subclass
# and another as a statement.
SECTIONS = {
    "super": tuple(_DIAGNOSTIC),
    "sub": tuple(dict.fromkeys(SUBCLASS.values())),
    "scp": STATEMENTS,
    "cpsc": CPSC,
    "aami": AAMI,
    "mit_rhythm": MIT_RHYTHM,
    "challenge": challenge.CLASSES,
}
OWN = "labels"  # the section of a user's own classes, which may be any


class Task(NamedTuple):
    """A label set: the section that defines its codes, and its classes in no particular order."""

    section: str
    classes: tuple[str, ...]


# dataset -> task
TASKS = {
    "ptb_xl": {
        "super": Task("super", SECTIONS["super"]),
        "sub": Task("sub", SECTIONS["sub"]),
        "diagnostic": Task("scp", DIAGNOSTIC),
        "form": Task("scp", FORM),
        "rhythm": Task("scp", RHYTHM),
        "all": Task("scp", STATEMENTS),
        "challenge": Task("challenge", challenge.PTB_XL),  # made of `all` when records are read
    },
    "cpsc2018": {"cpsc": Task("cpsc", CPSC)},
    "cinc2021": {"challenge": Task("challenge", challenge.CLASSES)},
    "mit_bih": {"aami": Task("aami", AAMI), "rhythm": Task("mit_rhythm", MIT_RHYTHM)},
    "ludb": {"rhythm": Task("scp", LUDB_RHYTHM), "diagnosis": Task("scp", LUDB_DIAGNOSIS)},
    "mimic_iv_ecg": {
        "statements": Task("scp", MACHINE),
        "super": Task("super", SECTIONS["super"]),
        "cpsc": Task("cpsc", CPSC),
    },
    "simulated": {
        "super": Task("super", SECTIONS["super"]),
        "findings": Task("scp", FINDINGS),
    },
}
