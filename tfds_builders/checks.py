"""What every prepared recording must be like, whichever dataset it is of."""

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfds_builders.errors import RecordError
from tfds_builders.leads import LEADS

Example = dict[str, Any]

# The least peak-to-peak amplitude in PTB-XL, CPSC2018 and MIT-BIH is 740 µV in the largest lead; a
# unit wrong by 1,000 leaves a few µV.
MIN_AMPLITUDE_UV = 100

LIMBS = LEADS[:6]
# Einthoven's and Goldberger's equations, each of which is zero: columns are the limb leads.
EQUATIONS = {
    "I + III - II": (1, -1, 1, 0, 0, 0),
    "aVR + (I + II) / 2": (0.5, 0.5, 0, 1, 0, 0),
    "aVL - (I - III) / 2": (-0.5, 0, 0.5, 0, 1, 0),
    "aVF - (II + III) / 2": (0, -0.5, -0.5, 0, 0, 1),
}
_MATRIX = np.array(list(EQUATIONS.values()), np.float32)
# Rounding leaves 1.5 µV. Of PTB-XL's 21,799 records 42 are further off in places, at most in 16 %
# of their samples; two exchanged leads are so in 30 % and more.
_LIMB_UV = 16
_LIMB_SHARE = 0.2

# Checks look at so many samples, which is enough for a share of them, and cheap.
_LOOKS_PER_SECOND = 50


def examine(
    examples: list[Example], rate: int, seconds: tuple[float, float], *, limb_leads: bool
) -> list[Example]:
    """A record's examples, with leads that never change taken out of their `lead_mask`.

    Adds `signal_digest`, and `dead_leads` where there are some. Raises RecordError where the record
    is shorter or longer than those of its dataset are, has no amplitude that an ECG has, or limb
    leads that contradict each other.
    """
    length = sum(len(example["ecg"]) for example in examples) / rate
    if not seconds[0] <= length <= seconds[1]:
        raise RecordError(f"{length:.6g} s long, records of this dataset are {_range(*seconds)} s")
    step = max(1, rate // _LOOKS_PER_SECOND)
    looks = [np.ascontiguousarray(example["ecg"][::step]) for example in examples]
    spans = [_span(few[::4]) for few in looks]
    _check_amplitude(examples, spans)
    for example, few, span in zip(examples, looks, spans, strict=True):
        # What is left at a record's end may be too short to tell.
        if len(example["ecg"]) >= rate:
            if not span.all():
                _mask_constant(example, span == 0)
            if limb_leads:
                check_limb_leads(few, example["lead_mask"])
        example["signal_digest"] = hashlib.sha256(few).digest()
    return examples


def _range(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _span(ecg: np.ndarray) -> np.ndarray:
    """Peak to peak of every lead."""
    return ecg.max(axis=0).astype(np.int32) - ecg.min(axis=0)


def _check_amplitude(examples: list[Example], spans: list[np.ndarray]) -> None:
    """`spans` are of some of the samples, which of most records is enough."""
    if max(span.max() for span in spans) >= MIN_AMPLITUDE_UV:
        return
    largest = max(_span(example["ecg"]).max() for example in examples)
    if largest == 0:
        raise RecordError("all leads are constant to the microvolt")
    if largest < MIN_AMPLITUDE_UV:
        raise RecordError(
            f"the largest lead spans {largest} uV, no ECG is below {MIN_AMPLITUDE_UV} uV: "
            "is the gain or its unit wrong?"
        )


def _mask_constant(example: Example, candidates: np.ndarray) -> None:
    constant = candidates & example["lead_mask"]
    constant &= (example["ecg"] == example["ecg"][0]).all(axis=0)
    if not constant.any():
        return
    mask = example["lead_mask"] & ~constant
    if not mask.any():
        raise RecordError(f"{example['record_id']}: all leads are constant to the microvolt")
    example["ecg"] = np.where(mask, example["ecg"], 0).astype(np.int16)
    example["lead_mask"] = mask
    found = {LEADS[i] for i in np.flatnonzero(constant)} | set(example.get("dead_leads", ()))
    example["dead_leads"] = [lead for lead in LEADS if lead in found]


def check_limb_leads(ecg: np.ndarray, lead_mask: np.ndarray, within: float = 0) -> None:
    """Raises RecordError where [T, 12] µV contradict Einthoven's or Goldberger's equations.

    Only equations are looked at of which all leads are there. `within` are the µV by which coarse
    steps of a recorder may miss them, if more than the usual tolerance.
    """
    within = max(_LIMB_UV, within)
    there = lead_mask[: len(LIMBS)]
    usable = slice(None) if there.all() else ~(_MATRIX[:, ~there] != 0).any(axis=1)
    matrix = _MATRIX[usable]
    if not len(matrix):
        return
    limbs = ecg[:, : len(LIMBS)].astype(np.float32)
    share = _shares(limbs, matrix, within)
    if (worst := share.max()) <= _LIMB_SHARE:
        return
    equation = np.array(list(EQUATIONS))[usable][share.argmax()]
    raise RecordError(
        f"limb leads contradict each other: {equation} is beyond {within:g} uV in "
        f"{100 * worst:.0f} % of the samples; {_what_fits(limbs, there, matrix, within)} "
        "(--limb_leads as_given takes them as they are)"
    )


def _shares(limbs: np.ndarray, matrix: np.ndarray, within: float) -> np.ndarray:
    """Of each equation: the share of samples that are off."""
    return (np.abs(matrix @ limbs.T) > within).sum(axis=1) / len(limbs)


def _what_fits(limbs: np.ndarray, there: np.ndarray, matrix: np.ndarray, within: float) -> str:
    """The least change of names or signs under which the equations hold."""
    columns = np.flatnonzero(there).tolist()
    for column in columns:
        signs = np.ones(len(LIMBS), np.float32)
        signs[column] = -1
        if _shares(limbs * signs, matrix, within).max() <= _LIMB_SHARE:
            return f"they fit with lead {LIMBS[column]} inverted"
    orders = sorted(itertools.permutations(columns), key=lambda order: _moved(columns, order))
    for order in orders[1:]:
        permuted = limbs.copy()
        permuted[:, columns] = limbs[:, order]
        if _shares(permuted, matrix, within).max() <= _LIMB_SHARE:
            moved = [
                (LIMBS[given], LIMBS[true])
                for true, given in zip(columns, order, strict=True)
                if true != given
            ]
            if len(moved) == 2:
                return f"they fit with leads {' and '.join(sorted(moved[0]))} exchanged"
            return f"they fit if {', '.join(f'{a} is {b}' for a, b in moved)}"
    return "they fit in no other order"


def _moved(columns: Sequence[int], order: Sequence[int]) -> int:
    return sum(a != b for a, b in zip(columns, order, strict=True))
