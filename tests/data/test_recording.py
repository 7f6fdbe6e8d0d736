"""A recording knows its leads, rate and units, and what no ECG is like is a line."""

import subprocess
import sys

import numpy as np
import pytest
from written_formats import write_csv, write_sierra

import ecg_jax
from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError
from tfds_builders.simulated.simulator import simulate


@pytest.fixture(scope="module")
def ecg() -> np.ndarray:
    return simulate(np.random.default_rng(1), findings=["NORM", "SR"]).ecg_uv


def made(samples, **changed) -> ecg_jax.Recording:
    given = {"leads": LEADS, "rate": 500, "units": "uV"} | changed
    return ecg_jax.from_array(samples, **given)


def test_units_give_the_same_microvolts(ecg):
    one = made(ecg)
    for factor, units in ((1e-3, "mV"), (1e-6, "V"), (0.5, "2 uV")):
        other = made(ecg * factor, units=units)
        np.testing.assert_allclose(other.microvolts, one.microvolts, atol=1e-6)
    assert one.window(500, 10).ecg.dtype == np.int16
    np.testing.assert_array_equal(one.window(500, 10).ecg, ecg)


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"units": "mV"}, "leads swing by .* mV, no ECG does: is the unit wrong"),
        ({"units": "0.001 uV"}, "spans .* uV, no ECG is below 100 uV: is the unit wrong"),
        ({"units": "bananas"}, "unit 'bananas'"),
        ({"leads": LEADS[:3]}, "samples of 3 leads"),
        ({"leads": ["a"] * 12}, "no standard lead"),
        ({"rate": 0}, "rate of 0 Hz"),
        ({"limb_leads": "swapped"}, "choose checked or as_given"),
    ],
)
def test_what_no_ecg_is_like(changed, line, ecg):
    with pytest.raises(UserError, match=line):
        made(ecg, **changed)


def test_samples_that_are_no_numbers(ecg):
    broken = ecg.astype(float)
    broken[3, 4] = np.nan
    with pytest.raises(UserError, match="lead aVL holds samples that are not numbers"):
        made(broken)
    with pytest.raises(UserError, match="are no samples"):
        made(ecg.astype(str))


def test_exchanged_limb_leads_are_refused_or_taken_knowingly(ecg):
    swapped = ecg.copy()
    swapped[:, [0, 1]] = ecg[:, [1, 0]]
    with pytest.raises(UserError, match="limb leads contradict"):
        made(swapped)
    assert made(swapped, limb_leads="as_given").lead_mask.all()


def test_coarse_steps_are_no_contradiction(ecg):
    coarse = np.rint(ecg / 30).astype(np.int16)
    assert made(coarse, units="30 uV").lead_mask.all()


def test_windows(ecg):
    recording = made(ecg)
    window = recording.window(100, 10)
    assert window.ecg.shape == (1000, 12)
    assert window.notes == ("resampled from 500 to 100 Hz",)
    assert recording.window(500, 4, start=3).notes == ("3 to 7 s of 10 s",)
    np.testing.assert_array_equal(recording.window(500, 4, start=3).ecg, ecg[1500:3500])
    short = made(ecg[:2500])
    with pytest.raises(UserError, match="5 s, the model takes 10 s"):
        short.window(500, 10)
    padded = short.window(500, 10, pad=True)
    assert not padded.ecg[2500:].any() and padded.notes == ("zeros for the last 5 s",)
    assert made(ecg[:4999]).window(500, 10).notes == ("zeros for the last 0.002 s",)
    with pytest.raises(UserError, match="nothing at 12 s of 10 s"):
        recording.window(500, 10, start=12)
    spike = ecg.astype(np.int32)
    spike[100, 2] = 40_000
    with pytest.raises(UserError, match="does not fit 16-bit microvolts"):
        made(spike, limb_leads="as_given").window(500, 10)


def test_files(ecg, tmp_path):
    write_csv(tmp_path / "r.csv", ecg[:, :2], 500)
    with pytest.raises(UserError, match="cells for 12 leads"):
        ecg_jax.read(tmp_path / "r.csv", rate=500, units="uV")
    write_sierra(tmp_path / "r.xml", ecg, 500)
    recording = ecg_jax.read(tmp_path / "r.xml")
    assert (recording.seconds, recording.ecg_samples) == (11, 5000)
    # The pulse is no ECG: a window does not reach into it.
    assert recording.window(500, 10).notes == ()
    with pytest.raises(UserError, match=r"8 s from 2 s on, the model takes 10 s"):
        recording.window(500, 10, start=2)
    described = recording.describe()
    assert "Philips Sierra, 11 s at 500 Hz" in described
    assert "a calibration pulse from 10.0 s on" in described


def test_reading_needs_no_jax():
    program = "import sys, ecg_jax; ecg_jax.read; ecg_jax.from_array; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_a_name_that_there_is_not():
    with pytest.raises(AttributeError, match="has no attribute 'predictt'"):
        _ = ecg_jax.predictt
