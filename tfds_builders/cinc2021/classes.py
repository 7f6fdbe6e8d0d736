"""The 26 classes that the Challenge scored, by their SNOMED CT codes; four are two codes each."""

from collections.abc import Collection

SNOMED = {
    "AF": ("164889003",),
    "AFL": ("164890007",),
    "BBB": ("6374002",),
    "Brady": ("426627000",),
    "LBBB": ("733534002", "164909002"),
    "RBBB": ("713427006", "59118001"),
    "IAVB": ("270492004",),
    "IRBBB": ("713426002",),
    "LAD": ("39732003",),
    "LAnFB": ("445118002",),
    "LPR": ("164947007",),
    "LQRSV": ("251146004",),
    "LQT": ("111975006",),
    "NSIVCB": ("698252002",),
    "NSR": ("426783006",),
    "PAC": ("284470004", "63593006"),
    "PR": ("10370003",),
    "PRWP": ("365413008",),
    "PVC": ("427172004", "17338001"),
    "QAb": ("164917005",),
    "RAD": ("47665007",),
    "SA": ("427393009",),
    "SB": ("426177001",),
    "STach": ("427084000",),
    "TAb": ("164934002",),
    "TInv": ("59931005",),
}
CLASSES = tuple(SNOMED)
DESCRIPTIONS = dict(
    zip(
        CLASSES,
        (
            "atrial fibrillation",
            "atrial flutter",
            "bundle branch block",
            "bradycardia",
            "left bundle branch block, complete or not said",
            "right bundle branch block, complete or not said",
            "1st degree AV block",
            "incomplete right bundle branch block",
            "left axis deviation",
            "left anterior fascicular block",
            "prolonged PR interval",
            "low QRS voltages",
            "prolonged QT interval",
            "nonspecific intraventricular conduction disorder",
            "sinus rhythm",
            "premature atrial or supraventricular beats",
            "pacing rhythm",
            "poor R wave progression",
            "premature ventricular contractions or beats",
            "abnormal Q wave",
            "right axis deviation",
            "sinus arrhythmia",
            "sinus bradycardia",
            "sinus tachycardia",
            "abnormal T wave",
            "T wave inversion",
        ),
        strict=True,
    )
)


def present(codes: Collection[str]) -> set[str]:
    """The scored classes that these codes say are there."""
    return {name for name, own in SNOMED.items() if not set(own).isdisjoint(codes)}
