"""The 26 classes that the PhysioNet/Computing in Cardiology Challenge 2021 scored (Reyna et al.,
doi 10.23919/CinC53138.2021.9662687), and which of PTB-XL's statements say that a record has one."""

import numpy as np

# Class -> its SNOMED CT codes, in the order of the weights. Four are two codes that count as one.
SNOMED = {
    "AF": (164889003,),
    "AFL": (164890007,),
    "BBB": (6374002,),
    "Brady": (426627000,),
    "LBBB": (733534002, 164909002),
    "RBBB": (713427006, 59118001),
    "IAVB": (270492004,),
    "IRBBB": (713426002,),
    "LAD": (39732003,),
    "LAnFB": (445118002,),
    "LPR": (164947007,),
    "LQRSV": (251146004,),
    "LQT": (111975006,),
    "NSIVCB": (698252002,),
    "NSR": (426783006,),
    "PAC": (284470004, 63593006),
    "PR": (10370003,),
    "PRWP": (365413008,),
    "PVC": (427172004, 17338001),
    "QAb": (164917005,),
    "RAD": (47665007,),
    "SA": (427393009,),
    "SB": (426177001,),
    "STach": (427084000,),
    "TAb": (164934002,),
    "TInv": (59931005,),
}
CLASSES = tuple(SNOMED)
SINUS = "NSR"  # what an output that says nothing else says

# PTB-XL's SCP-ECG statements whose meaning is the class's, and no others. The axis (LAD, RAD) is
# not among the statements; none is of BBB, Brady or PRWP without saying more or less than that;
# SVARR is any supraventricular arrhythmia, which the Challenge's own labels count as PAC; and those
# call every normal ECG sinus rhythm, where here the statement SR is asked for.
FROM_SCP = {
    "AF": ("AFIB",),
    "AFL": ("AFLT",),
    "LBBB": ("CLBBB",),
    "RBBB": ("CRBBB",),
    "IAVB": ("1AVB",),
    "IRBBB": ("IRBBB",),
    "LAnFB": ("LAFB",),
    "LPR": ("LPR",),
    "LQRSV": ("LVOLT",),
    "LQT": ("LNGQT",),
    "NSIVCB": ("IVCD",),
    "NSR": ("SR",),
    "PAC": ("PAC",),
    "PR": ("PACE",),
    "PVC": ("PVC",),
    "QAb": ("QWAVE",),
    "SA": ("SARRH",),
    "SB": ("SBRAD",),
    "STach": ("STACH",),
    "TAb": ("NDT", "NT_", "TAB_", "LOWT"),
    "TInv": ("INVT",),
}
PTB_XL = tuple(FROM_SCP)  # the scored classes that PTB-XL has labels of


def from_scp(y: np.ndarray, statements: list[str]) -> np.ndarray:
    """bool [N, 21] of `PTB_XL`: a record has a class if it has one of its statements, which are
    bool [N, K] by name."""
    column = {name: y[:, k] for k, name in enumerate(statements)}
    none = np.zeros(len(y), bool)
    found = [[column.get(name, none) for name in FROM_SCP[label]] for label in PTB_XL]
    return np.stack([np.any(columns, axis=0) for columns in found], axis=1)
