"""The written folders against the published formats, read by wfdb and SciPy themselves."""

import ast
import collections
import csv
import hashlib
import re
import struct

import numpy as np
import pytest
import scipy.io
import wfdb.processing

from tfds_builders.errors import RecordError
from tfds_builders.leads import LEADS
from tfds_builders.simulated import cases
from tfds_builders.simulated.layouts import write_cpsc2018, write_mit_bih, write_ptb_xl


@pytest.fixture(scope="module")
def ptb_xl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ptb-xl")
    write_ptb_xl(folder, records=36, seed=4)
    return folder


@pytest.fixture(scope="module")
def challenge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("challenge")
    write_cpsc2018(folder, layout="challenge", records=12, max_seconds=20)
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    write_cpsc2018(folder, layout="original", records=12, max_seconds=20)
    return folder


@pytest.fixture(scope="module")
def mit_bih(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mitdb")
    write_mit_bih(folder, seconds=60)
    return folder


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def digital(stem):
    """Samples as wfdb reads them, their checksums compared with the header's."""
    record = wfdb.rdrecord(str(stem), physical=False)
    stated = [value % 65_536 for value in record.checksum]
    assert [value % 65_536 for value in record.calc_checksum()] == stated
    assert record.init_value == record.d_signal[0].tolist()
    return record


def assert_sums_agree(folder, count):
    lines = (folder / "SHA256SUMS.txt").read_text().splitlines()
    assert len(lines) == count
    for line in lines:
        digest, name = line.split(" ", 1)
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_ptb_xl_records(ptb_xl):
    rows = read_csv(ptb_xl / "ptbxl_database.csv")
    assert len(rows) == 36
    for row, case in zip(rows, cases.draw_cases(36, 4), strict=True):
        stem = ptb_xl / row["filename_hr"]
        assert stem.relative_to(ptb_xl).as_posix() == f"records500/00000/{case.record:05d}_hr"
        record = digital(stem)
        assert record.sig_name == [lead.upper() for lead in LEADS]
        assert record.fs == 500 and record.units == ["mV"] * 12 and record.adc_gain == [1000] * 12
        expected, _ = cases.make(case, 500)
        np.testing.assert_array_equal(record.d_signal, expected.ecg_uv)
    header = (ptb_xl / "records500/00000/00001_hr.hea").read_text().splitlines()
    assert header[0] == "00001_hr 12 500 5000" and len(header) == 13
    pattern = r"00001_hr\.dat 16 1000\.0\(0\)/mV 16 0 -?\d+ \d+ 0 AVR"
    assert re.fullmatch(pattern, header[4])
    assert_sums_agree(ptb_xl, 2 * 36 + 2)


def test_ptb_xl_table(ptb_xl):
    rows = read_csv(ptb_xl / "ptbxl_database.csv")
    assert len(rows[0]) == 28 and list(rows[0])[:3] == ["ecg_id", "patient_id", "age"]
    statements = {row[""]: row for row in read_csv(ptb_xl / "scp_statements.csv")}
    folds = {}
    for row in rows:
        assert re.fullmatch(r"\d+\.0", row["patient_id"])
        assert folds.setdefault(row["patient_id"], row["strat_fold"]) == row["strat_fold"]
        codes = ast.literal_eval(row["scp_codes"])
        assert set(codes) <= set(statements)
        for code, likelihood in codes.items():
            assert likelihood == (0 if statements[code]["rhythm"] else likelihood)
        if {"STD_", "STE_", "INVT"} & set(codes):
            assert "STTC" in {statements[code]["diagnostic_class"] for code in codes}
    assert set(folds.values()) == {str(fold) for fold in range(1, 11)}
    assert len(folds) < len(rows)
    reports = [row["report"] for row in rows]
    boilerplate = "4.46                          unbestÄtigter bericht"
    assert any(text.endswith(boilerplate) for text in reports)
    edited = [text for text in reports if "Edit: " in text]
    assert edited and all(re.search(r"Edit: \S+ 100, \(\S+ 100\)$", text) for text in edited)
    assert any(text.startswith("sinus rhythm.") for text in reports)


def test_scp_statements_are_the_published_table(ptb_xl):
    rows = read_csv(ptb_xl / "scp_statements.csv")
    assert len({row[""] for row in rows}) == 71
    counts = {flag: sum(row[flag] == "1.0" for row in rows) for flag in ("form", "rhythm")}
    # Wagner et al. 2020: 44 diagnostic, 19 form, 12 rhythm statements, 4 both of the first two.
    diagnostic = [row for row in rows if row["diagnostic"] == "1.0"]
    assert (len(diagnostic), counts["form"], counts["rhythm"]) == (44, 19, 12)
    assert sum(row["form"] == "1.0" for row in diagnostic) == 4
    assert len({row["diagnostic_class"] for row in diagnostic}) == 5
    assert len({row["diagnostic_subclass"] for row in diagnostic}) == 23
    for row in rows:
        if row["diagnostic"] != "1.0":
            assert row["diagnostic_class"] == row["diagnostic_subclass"] == ""


@pytest.mark.real_data
def test_ptb_xl_looks_like_the_real_one(ptb_xl, real_data):
    real, ours = real_data / "ptb-xl", ptb_xl
    for name in ("ptbxl_database.csv", "scp_statements.csv"):
        first = [(f / name).read_text(encoding="utf-8").split("\n")[0] for f in (real, ours)]
        assert first[0] == first[1]
    columns = ("", "description", "diagnostic", "form", "rhythm", "diagnostic_class")
    tables = [read_csv(folder / "scp_statements.csv") for folder in (real, ours)]
    for theirs, written in zip(*tables, strict=True):
        assert [theirs[c] for c in columns] == [written[c] for c in columns]
        assert theirs["diagnostic_subclass"] == written["diagnostic_subclass"]
    numbers = re.compile(r"-?\d+ \d+ 0 ")
    headers = [
        numbers.sub("", (folder / "records500/00000/00001_hr.hea").read_text())
        for folder in (real, ours)
    ]
    assert headers[0] == headers[1]


def test_challenge_records(challenge):
    folder = challenge / "training" / "cpsc_2018" / "g1"
    names = (folder / "RECORDS").read_text().split()
    assert names == [f"A{number:04d}" for number in range(1, 13)]
    lengths, codes = set(), collections.Counter()
    for name in names:
        record = digital(folder / name)
        assert record.sig_name == list(LEADS) and record.fmt == ["16"] * 12
        assert record.byte_offset == [24] * 12
        values = scipy.io.loadmat(folder / f"{name}.mat")["val"]
        np.testing.assert_array_equal(values.T, record.d_signal)
        header = struct.unpack("<5i", (folder / f"{name}.mat").read_bytes()[:20])
        assert header == (30, 12, record.sig_len, 0, 4)  # MATLAB 4, int16, "val"
        lengths.add(record.sig_len)
        assert 6 * 500 <= record.sig_len <= 20 * 500
        text = (folder / f"{name}.hea").read_text()
        codes.update(re.search(r"^#Dx: ([\d,]+)$", text, re.MULTILINE)[1].split(","))
        assert re.search(r"^#Age: \d+\n#Sex: (Male|Female)\n#Dx: ", text, re.MULTILINE)
    assert len(lengths) > 5 and len(codes) == 9
    assert sum(codes.values()) > 12
    assert_sums_agree(challenge, 2 * 12 + 1)


def test_original_records(original, challenge):
    rows = read_csv(original / "REFERENCE.csv")
    assert list(rows[0]) == ["Recording", "First_label", "Second_label", "Third_label"]
    assert {row["First_label"] for row in rows} == set("123456789")
    assert any(row["Second_label"] for row in rows) and not any(row["Third_label"] for row in rows)
    for row in rows:
        ecg = scipy.io.loadmat(original / f"{row['Recording']}.mat")["ECG"][0, 0]
        assert ecg.dtype.names == ("sex", "age", "data")
        assert ecg["sex"][0] in ("Male", "Female") and 18 <= ecg["age"][0, 0] < 90
        assert ecg["data"].dtype == np.float64  # mV, [12, T]
        twin = digital(challenge / "training" / "cpsc_2018" / "g1" / row["Recording"])
        np.testing.assert_allclose(1000 * ecg["data"].T, twin.d_signal, atol=1e-9)


def test_unknown_cpsc_layout_is_refused(tmp_path):
    with pytest.raises(RecordError, match="no layout 'hidden'"):
        write_cpsc2018(tmp_path / "x", layout="hidden")
    assert not (tmp_path / "x").exists()


def test_mit_bih_records(mit_bih):
    published = {"100": ["MLII", "V5"], "102": ["V5", "V2"], "114": ["V5", "MLII"]}
    names = (mit_bih / "RECORDS").read_text().split()
    assert len(names) == 12 and {"100", "101", "102", "114", "201", "202", "207"} <= set(names)
    for name in names:
        record = digital(mit_bih / name)
        assert record.sig_name == published.get(name, record.sig_name)
        assert record.fmt == ["212"] * 2 and record.fs == 360 and record.sig_len == 21_600
        assert record.adc_gain == [200, 200] and record.baseline == [1024, 1024]
        assert record.d_signal.min() >= 0 and record.d_signal.max() <= 2047
        assert (mit_bih / f"{name}.dat").stat().st_size == 21_600 * 3
        assert np.ptp(record.d_signal, axis=0).min() > 60  # 0.3 mV
    assert_sums_agree(mit_bih, 3 * 12 + 1)


def test_mit_bih_annotations(mit_bih):
    symbols, notes = collections.Counter(), collections.Counter()
    for name in (mit_bih / "RECORDS").read_text().split():
        found = wfdb.rdann(str(mit_bih / name), "atr")
        assert (np.diff(found.sample) > 0).all() and found.sample[-1] < 21_600
        assert found.symbol[0] == "+"
        symbols.update(found.symbol)
        notes.update(note.strip("\0") for note in found.aux_note if note)
        assert all(note.endswith("\0") for note in found.aux_note if note)
    assert set(symbols) == {"+", "N", "L", "R", "V", "A", "/"}
    assert set(notes) == {"(N", "(AFIB", "(SBR", "(P"}
    assert sum(notes.values()) == symbols["+"] == 15


def test_mit_bih_annotations_stand_at_the_beats(mit_bih):
    for name in ("100", "101", "201", "212"):
        signal = wfdb.rdrecord(str(mit_bih / name)).p_signal
        found = wfdb.rdann(str(mit_bih / name), "atr")
        beats = found.sample[np.array(found.symbol) != "+"]
        beats = beats[(beats > 720) & (beats < 21_000)]
        detected = wfdb.processing.xqrs_detect(signal[:, 0], 360, verbose=False)
        away = np.abs(beats[:, None] - detected).min(axis=1)
        assert (away < 0.09 * 360).mean() > 0.9


@pytest.mark.real_data
def test_mit_bih_looks_like_the_real_one(mit_bih, real_data):
    numbers = re.compile(r"\d+ -?\d+ 0 ")
    for name in (
        "100",
        "101",
        "102",
        "109",
        "114",
        "118",
        "200",
        "201",
        "202",
        "207",
        "212",
        "232",
    ):
        theirs, ours = (
            (folder / f"{name}.hea").read_text().splitlines()[:3]
            for folder in (real_data / "mitdb", mit_bih)
        )
        assert theirs[0].split()[:3] == ours[0].split()[:3]
        for a, b in zip(theirs[1:], ours[1:], strict=True):
            assert numbers.sub("", a) == numbers.sub("", b)


def test_writing_twice_gives_the_same_files(tmp_path, mit_bih):
    write_mit_bih(tmp_path, seconds=60)
    sums = [(folder / "SHA256SUMS.txt").read_text() for folder in (tmp_path, mit_bih)]
    assert sums[0] == sums[1]
