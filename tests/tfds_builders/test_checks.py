"""Checks that every recording goes through."""

import numpy as np
import pytest

from tfds_builders.checks import LIMBS, check_limb_leads, examine
from tfds_builders.errors import RecordError
from tfds_builders.leads import LEADS

RATE = 100


def ecg(seed: int = 0, t: int = 1000) -> np.ndarray:
    """int16 [T, 12]: slow noise in which the limb leads are made of I and II, as they are."""
    leads = np.random.default_rng(seed).normal(size=(t, 8)).cumsum(axis=0) * 20
    one, two = leads[:, 0], leads[:, 1]
    limbs = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return np.rint(np.stack([*limbs, *leads[:, 2:].T], axis=1)).astype(np.int16)


def example(signal: np.ndarray, mask: np.ndarray | None = None) -> dict:
    mask = np.ones(12, np.bool_) if mask is None else mask
    return {"ecg": signal, "lead_mask": mask, "record_id": "7", "labels": {}}


def examined(signal: np.ndarray, mask: np.ndarray | None = None, *, limb_leads=True) -> dict:
    return examine([example(signal, mask)], RATE, (1, 10), limb_leads=limb_leads)[0]


def test_sound_records_pass():
    made = examined(ecg())
    np.testing.assert_array_equal(made["ecg"], ecg())
    assert made["lead_mask"].all() and "dead_leads" not in made


def test_equal_signals_have_equal_digests():
    assert examined(ecg())["signal_digest"] == examined(ecg())["signal_digest"]
    assert examined(ecg())["signal_digest"] != examined(ecg(1))["signal_digest"]


@pytest.mark.parametrize("a", range(6))
@pytest.mark.parametrize("b", range(6))
def test_two_exchanged_limb_leads_are_named(a, b):
    signal = ecg()
    signal[:, [a, b]] = signal[:, [b, a]]
    if a == b:
        check_limb_leads(signal, np.ones(12, np.bool_))
        return
    names = " and ".join(sorted((LIMBS[a], LIMBS[b])))
    with pytest.raises(RecordError, match=f"they fit with leads {names} exchanged"):
        check_limb_leads(signal, np.ones(12, np.bool_))


def test_an_inverted_lead_a_turn_and_what_fits_nothing():
    signal = ecg()
    signal[:, 2] *= -1
    with pytest.raises(RecordError, match="they fit with lead III inverted"):
        examined(signal)
    signal = ecg()
    signal[:, [3, 4, 5]] = signal[:, [4, 5, 3]]
    with pytest.raises(RecordError, match="they fit if aVF is aVR, aVR is aVL, aVL is aVF"):
        examined(signal)
    signal = np.random.default_rng(0).integers(-500, 500, (1000, 12)).astype(np.int16)
    with pytest.raises(RecordError, match=r"they fit in no other order \(--limb_leads as_given"):
        examined(signal)
    assert examined(signal, limb_leads=False)["lead_mask"].all()


def test_a_fault_of_a_moment_is_no_contradiction():
    signal = ecg()
    signal[100:260, 1] += 3000  # 16 % of the samples, as in a real record
    examined(signal)
    signal[100:400, 1] = 0
    with pytest.raises(RecordError, match="I \\+ III - II is beyond 16 uV in"):
        examined(signal)


def test_equations_of_missing_leads_are_not_looked_at():
    mask = np.isin(LEADS, ("II", "V1"))
    examined(np.where(mask, ecg(), 0).astype(np.int16), mask)
    mask = np.isin(LEADS, ("I", "II", "III", "V1"))
    signal = np.where(mask, ecg(), 0).astype(np.int16)
    examined(signal, mask)
    signal[:, [0, 1]] = signal[:, [1, 0]]
    with pytest.raises(RecordError, match=r"I \+ III - II"):
        examined(signal, mask)


def test_leads_that_never_change_are_masked():
    signal = ecg()
    signal[:, 9] = 700
    made = examined(signal)
    assert made["dead_leads"] == ["V4"] and not made["lead_mask"][9]
    assert not made["ecg"][:, 9].any() and made["lead_mask"].sum() == 11
    signal[:, 1] = 0  # a dead limb lead contradicts no other
    assert examined(signal)["dead_leads"] == ["II", "V4"]
    signal[500, 9] += 1
    assert examined(signal)["dead_leads"] == ["II"]


@pytest.mark.parametrize(
    ("signal", "message"),
    [
        (np.zeros((1000, 12), np.int16), "all leads are constant"),
        ((ecg() // 1000), "the largest lead spans . uV, no ECG is below 100 uV"),
        (ecg(t=99), "0.99 s long, records of this dataset are 1 to 10 s"),
        (ecg(t=1001), "10.01 s long"),
    ],
)
def test_what_no_ecg_is(signal, message):
    with pytest.raises(RecordError, match=message):
        examined(signal)
