"""WFDB records to int16 microvolts: placement, units, checks, resampling."""

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import wfdb

from tfds_builders.errors import RecordError, SourceError
from tfds_builders.files import load_sha256
from tfds_builders.leads import LEADS
from tfds_builders.records import read_wfdb, resample, to_recording


def write(folder: Path, names, digital, *, fs=500, fmt="16", gain=1000.0, baseline=0, units="mV"):
    """A record `r`, written by wfdb itself; `digital` int [T, n]."""
    n = digital.shape[1]
    wfdb.wrsamp(
        "r",
        fs=fs,
        units=[units] * n,
        sig_name=list(names),
        d_signal=digital,
        fmt=[fmt] * n,
        adc_gain=[gain] * n,
        baseline=[baseline] * n,
        write_dir=str(folder),
    )
    return folder / "r"


def noise(t=1000, n=12, scale=500, seed=0):
    return np.random.default_rng(seed).integers(-scale, scale, (t, n))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_leads_are_placed_by_name_whatever_their_order_and_case(tmp_path):
    order = np.random.default_rng(1).permutation(12)
    names = [LEADS[i].upper() if i % 2 else LEADS[i].lower() for i in order]
    digital = noise()
    ecg, mask = read_wfdb(write(tmp_path, names, digital), 500)
    np.testing.assert_array_equal(ecg[:, order], digital)
    assert ecg.dtype == np.int16 and mask.all()


def test_mlii_is_ii_and_missing_leads_are_zero_and_masked(tmp_path):
    digital = noise(n=2)
    ecg, mask = read_wfdb(write(tmp_path, ["V5", "MLII"], digital), 500)
    np.testing.assert_array_equal(ecg[:, [LEADS.index("V5"), LEADS.index("II")]], digital)
    assert [lead for lead, there in zip(LEADS, mask, strict=True) if there] == ["II", "V5"]
    assert not ecg[:, ~mask].any()


@pytest.mark.parametrize(
    ("fmt", "gain", "baseline", "units"),
    [
        ("212", 200.0, 1024, "mV"),
        ("16", 2.5, -7, "uV"),
        ("24", 1e5, 30, "mV"),
        ("80", 20.0, 3, "mV"),
    ],
)
def test_gain_baseline_and_unit_come_from_the_header(tmp_path, fmt, gain, baseline, units):
    digital = noise(scale=100)
    stem = write(tmp_path, LEADS, digital, fmt=fmt, gain=gain, baseline=baseline, units=units)
    expected = wfdb.rdrecord(str(stem)).p_signal * (1000 if units == "mV" else 1)
    np.testing.assert_allclose(read_wfdb(stem, 500).ecg, expected, atol=0.5001)
    assert np.ptp(expected) > 1


def test_signed_and_unsigned_checksums_are_the_same(tmp_path):
    stem = write(tmp_path, LEADS, noise())
    header = wfdb.rdheader(str(stem))
    stated = header.checksum[0]
    other = stated - 65536 if stated > 0 else stated + 65536
    edit(stem.with_suffix(".hea"), f" {stated} 0 I", f" {other} 0 I")
    read_wfdb(stem, 500)


def test_wrong_checksum(tmp_path):
    stem = write(tmp_path, LEADS, noise())
    data = bytearray(stem.with_suffix(".dat").read_bytes())
    data[2 * (12 * 7 + 3)] ^= 1  # sample 7 of lead aVR
    stem.with_suffix(".dat").write_bytes(data)
    with pytest.raises(RecordError, match=r"r\.hea: checksum of r\.dat, lead aVR, is \d+, header"):
        read_wfdb(stem, 500)


@pytest.mark.parametrize(("fmt", "size"), [("16", 24000), ("212", 18000), ("24", 36000)])
def test_truncated_samples(tmp_path, fmt, size):
    stem = write(tmp_path, LEADS, noise(), fmt=fmt)
    path = stem.with_suffix(".dat")
    assert path.stat().st_size == size
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RecordError, match=rf"r\.dat: truncated, {size - 1} of {size} bytes"):
        read_wfdb(stem, 500)


def test_missing_files(tmp_path):
    with pytest.raises(RecordError, match=r"r\.hea: no such file"):
        read_wfdb(tmp_path / "r", 500)
    stem = write(tmp_path, LEADS, noise())
    stem.with_suffix(".dat").unlink()
    with pytest.raises(RecordError, match=r"r\.dat: no such file"):
        read_wfdb(stem, 500)


def test_unknown_twice_named_and_lacking_leads(tmp_path):
    names = [*LEADS[:11], "V6X"]
    with pytest.raises(RecordError, match=r"r\.hea: unknown lead name 'V6X'"):
        read_wfdb(write(tmp_path, names, noise()), 500)
    with pytest.raises(RecordError, match="lead II occurs twice"):
        read_wfdb(write(tmp_path, ["MLII", "II"], noise(n=2)), 500)
    with pytest.raises(RecordError, match="lacks lead II, V6"):
        read_wfdb(write(tmp_path, ["I"], noise(n=1)), 500, required_leads=("I", "V6", "II"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("/mV", "/mmHg", "unknown unit 'mmHg'"),
        ("1000.0(0)/mV", "0(0)/mV", "uncalibrated"),
        ("16 1000.0(0)/mV 16 0", "16", "without gain, checksum or lead name"),
        ("16 1000.0", "16x2 1000.0", "more than one sample per frame"),
        ("16 1000.0", "310 1000.0", "signal format 310 is not supported"),
        ("r 12 500 1000", "r 12", "gives no sampling rate"),
        ("r 12 500 1000", "r 12 500 999", "checksum of"),
        ("r 12 500 1000", "r 13 500 1000", "not a WFDB header|unreadable|signal"),
        ("r 12 500 1000", "r/2 12 500 1000", "not a WFDB header|multi-segment|unreadable"),
    ],
)
def test_headers_that_leave_doubt_are_refused(tmp_path, old, new, message):
    stem = write(tmp_path, LEADS, noise())
    edit(stem.with_suffix(".hea"), old, new)
    with pytest.raises(RecordError, match=message) as caught:
        read_wfdb(stem, 500)
    assert "\n" not in str(caught.value) and "r.hea" in str(caught.value)


def test_invalid_samples_are_refused(tmp_path):
    digital = noise()
    digital[5, 2] = -(2**15)
    with pytest.raises(RecordError, match=r"r\.hea: 1 samples in r\.dat are marked invalid"):
        read_wfdb(write(tmp_path, LEADS, digital), 500)


def test_samples_beyond_int16_microvolts_are_refused_not_wrapped(tmp_path):
    digital = noise()
    digital[5, 2] = 8000  # at 200 units per mV: 40 mV
    with pytest.raises(RecordError, match=r"40\.0 mV does not fit"):
        read_wfdb(write(tmp_path, LEADS, digital, gain=200.0), 500)
    with pytest.raises(RecordError, match="not numbers"):
        to_recording(np.full((10, 12), math.nan), LEADS, 500, 500, Path("x"))


def test_resampling_keeps_what_the_lower_rate_can_hold_and_drops_the_rest():
    t = np.arange(5000) / 500
    slow, fast = np.sin(2 * np.pi * 5 * t), np.sin(2 * np.pi * 130 * t)
    expected = np.sin(2 * np.pi * 5 * np.arange(1000) / 100)
    got = resample(np.stack([slow, slow + fast, fast], axis=1), 500, 100, Path("x"))
    assert got.shape == (1000, 3)
    inner = slice(50, -50)
    np.testing.assert_allclose(got[inner, 0], expected[inner], atol=5e-3)
    np.testing.assert_allclose(got[inner, 1], expected[inner], atol=1e-2)
    assert np.abs(got[inner, 2]).max() < 1e-2  # decimation alone would alias it to 30 Hz


@pytest.mark.parametrize(
    ("fs", "rate", "length"), [(360, 500, 5000), (360, 100, 1000), (257, 500, 5000)]
)
def test_resampling_ratio_is_exact(fs, rate, length):
    t = np.arange(10 * fs) / fs
    got = resample(np.sin(2 * np.pi * 3 * t)[:, None], fs, rate, Path("x"))
    assert len(got) == length
    expected = np.sin(2 * np.pi * 3 * np.arange(length) / rate)
    np.testing.assert_allclose(
        got[length // 5 : -length // 5, 0], expected[length // 5 : -length // 5], atol=5e-3
    )


def test_offset_leaves_no_edge_and_overshoot_saturates():
    flat = to_recording(np.full((5000, 12), 3000.0), LEADS, 500, 100, Path("x")).ecg
    assert np.abs(flat - 3000).max() <= 1
    step = np.where(np.arange(5000)[:, None] < 2500, -32767.0, 32767.0) * np.ones(12)
    ecg = to_recording(step, LEADS, 500, 100, Path("x")).ecg
    assert (ecg[:450] < -32000).all() and (ecg[550:] > 32000).all()
    assert ecg.max() == 32767 and ecg.min() == -32767


def test_absurd_rates_are_refused():
    with pytest.raises(RecordError, match=r"can't resample from 499\.013 Hz"):
        resample(np.zeros((10, 1)), 499.013, 500, Path("x"))
    with pytest.raises(RecordError, match="sampling rate of 0 Hz"):
        resample(np.zeros((10, 1)), 0, 500, Path("x"))


def test_sha256(tmp_path):
    stem = write(tmp_path, LEADS, noise())
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()
    }
    lines = [f"{digest} *./{name}\n" for name, digest in digests.items()]
    (tmp_path / "SHA256SUMS.txt").write_text("".join(lines))
    assert load_sha256(tmp_path) == digests
    read_wfdb(stem, 500, sha256=digests)
    with stem.with_suffix(".hea").open("a") as file:
        file.write("# edited\n")
    with pytest.raises(RecordError, match=r"r\.hea: SHA-256 .* SHA256SUMS\.txt says"):
        read_wfdb(stem, 500, sha256=digests)
    (tmp_path / "SHA256SUMS.txt").write_text("not a digest\n")
    with pytest.raises(SourceError, match=r"SHA256SUMS\.txt: not a SHA-256 line"):
        load_sha256(tmp_path)
