"""This project's reading of WFDB headers and samples against wfdb's own."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import wfdb
from wfdb.io.header import HeaderSyntaxError

from tfds_builders.errors import RecordError
from tfds_builders.header import read_header
from tfds_builders.samples import FORMATS, read_samples
from tfds_builders.simulated.wfdb_files import write_format_16


def assert_as_wfdb_reads(path: Path) -> None:
    header = read_header(path)
    record = wfdb.rdrecord(str(path.with_suffix("")), physical=False)
    np.testing.assert_array_equal(read_samples(header, path), record.d_signal)
    assert (header.rate, header.num_samples) == (record.fs, record.sig_len)
    fields = zip(
        record.sig_name,
        record.adc_gain,
        record.baseline,
        [unit.casefold() for unit in record.units],
        record.checksum,
        record.fmt,
        strict=True,
    )
    assert list(fields) == [
        (s.name, s.gain, s.baseline, s.unit.casefold(), s.checksum, s.format)
        for s in header.signals
    ]


_UNWRITTEN = ("61", "160")  # wfdb reads them only


@pytest.mark.parametrize("fmt", sorted(FORMATS))
@pytest.mark.parametrize(("length", "leads"), [(1000, 12), (1001, 1), (7, 3)])
def test_every_format(tmp_path, fmt, length, leads):
    bits, invalid = FORMATS[fmt]
    low, high = invalid + 1, 2 ** (bits - 1) - 1
    digital = np.random.default_rng(0).integers(low, high, (length, leads), endpoint=True)
    digital[:2, 0] = low, high
    wfdb.wrsamp(
        "r",
        fs=360,
        units=["mV"] * leads,
        sig_name=[f"V{i}" for i in range(leads)],
        d_signal=digital,
        fmt=["16" if fmt in _UNWRITTEN else fmt] * leads,
        adc_gain=[200.5] * leads,
        baseline=[5] * leads,
        write_dir=str(tmp_path),
    )
    path = tmp_path / "r.hea"
    if fmt in _UNWRITTEN:
        path.write_text(path.read_text().replace(".dat 16 ", f".dat {fmt} "))
        stored = digital.astype(">i2") if fmt == "61" else (digital + 2**15).astype("<u2")
        path.with_suffix(".dat").write_bytes(stored.tobytes())
    np.testing.assert_array_equal(read_samples(read_header(path), path), digital)
    assert_as_wfdb_reads(path)


def test_signals_in_several_files_and_formats(tmp_path):
    digital = np.random.default_rng(0).integers(-100, 100, (99, 3))
    write_format_16(tmp_path / "r.dat", digital[:, :2])
    (tmp_path / "r.mat").write_bytes(b"header" + (digital[:, 2] + 128).astype(np.uint8).tobytes())
    sums = (digital.sum(axis=0) % 65536).tolist()
    kinds = ("r.dat 16", "r.dat 16", "r.mat 80+6")
    lines = [f"{kind} 1/uV 16 0 0 {n} 0 V{n}" for kind, n in zip(kinds, sums, strict=True)]
    (tmp_path / "r.hea").write_text("\n".join(["r 3 250 99", *lines]))
    path = tmp_path / "r.hea"
    np.testing.assert_array_equal(read_samples(read_header(path), path), digital)
    assert_as_wfdb_reads(path)
    path.write_text("\n".join(["r 3 250 99", lines[0], lines[2], lines[1]]))
    with pytest.raises(RecordError, match="do not stand together"):
        read_samples(read_header(path), path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("r 1 +500 10", "sampling rate '\\+500' is not a plain number"),
        ("r 1 -500 10", "sampling rate '-500'"),
        ("r 1 nan 10", "sampling rate 'nan'"),
        ("r 1 5e2 10", "sampling rate '5e2'"),
        ("r 1 0 10", "sampling rate '0'"),
        ("r 1 500 0", "number of samples '0'"),
        ("r 1 500 -3", "number of samples '-3'"),
        ("r 0 500 10", "empty or multi-segment"),
        ("r 2 500 10", "describes 1 signals, states 2"),
        ("q 1 500 10", "names 'q', so it is another record's header"),
        ("../r 1 500 10", "multi-segment"),
    ],
)
def test_record_lines_that_leave_doubt(tmp_path, line, message):
    (tmp_path / "r.hea").write_text(f"{line}\nr.dat 16 1000/mV 16 0 0 0 0 I\n", encoding="utf-8")
    with pytest.raises(RecordError, match=message):
        read_header(tmp_path / "r.hea")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q.dat 16 1000/mV 16 0 0 0 0 I", "names 'q.dat', so it is another record's"),
        ("../r.dat 16 1000/mV 16 0 0 0 0 I", r"names '\.\./r\.dat'"),
        ("r.dat 16:3 1000/mV 16 0 0 0 0 I", "skewed"),
        ("r.dat 16x2 1000/mV 16 0 0 0 0 I", "more than one sample per frame"),
        ("r.dat 16 nan/mV 16 0 0 0 0 I", "gain 'nan/mV' \\(uncalibrated\\)"),
        ("r.dat 16 1000/mV 16 0 0 x 0 I", "'x' of lead I is not a whole number"),
        ("r.dat 16 1000/mV 16 0 0 0 I", "without gain, checksum or lead name"),
    ],
)
def test_signal_lines_that_leave_doubt(tmp_path, line, message):
    (tmp_path / "r.hea").write_text(f"r 1 500 10\n{line}\n", encoding="utf-8")
    with pytest.raises(RecordError, match=message):
        read_header(tmp_path / "r.hea")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_a_micro_sign_is_read(tmp_path, encoding):
    path = tmp_path / "r.hea"
    path.write_text("r 1 360/72.5(0) 10\nr.dat 16 1(0)/µV 16 0 0 0 0 I\n", encoding=encoding)
    header = read_header(path)
    assert header.signals[0].unit == "µV" and header.rate == 360


@pytest.mark.parametrize(
    "gain", ["1(100000000000000000000)/uV", "1(-2147483648)/uV", f"1({'9' * 400})/uV", "1e999/uV"]
)
def test_gains_of_no_device(tmp_path, gain):
    path = tmp_path / "r.hea"
    path.write_text(f"r 1 360 10\nr.dat 16 {gain} 16 0 0 0 0 I\n")
    with pytest.raises(RecordError, match=r"gain .* of lead I|with gain .*uncalibrated"):
        read_header(path)


def test_a_header_in_capitals_is_named(tmp_path):
    (tmp_path / "r.HEA").touch()
    with pytest.raises(RecordError, match=r"r\.hea: no such file \(rename r\.HEA"):
        read_header(tmp_path / "r.hea")


@pytest.mark.real_data
def test_real_records(real_data):
    patterns = (
        "ptb-xl/records500/*/*00_hr.hea",
        "ptb-xl-100hz/records100/*/*00_lr.hea",
        "mitdb/1*.hea",
        "ludb/data/*0.hea",
        "cpsc2018/training/**/*.hea",
        "cinc2021/training/**/*.hea",
    )
    paths = [path for pattern in patterns for path in sorted(real_data.glob(pattern))]
    assert len(paths) > 50
    for path in paths:
        with contextlib.suppress(HeaderSyntaxError):  # wfdb refuses a full stop in a record's name
            assert_as_wfdb_reads(path)
