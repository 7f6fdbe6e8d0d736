"""CPSC2018 in both published layouts."""

import csv
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import wfdb

from tfds_builders import prepare
from tfds_builders.cpsc2018 import read
from tfds_builders.leads import LEADS
from tfds_builders.simulated.layouts import write_cpsc2018


def reference(folder: Path) -> dict[str, list[int]]:
    with (folder / "REFERENCE.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    nth = ("First_label", "Second_label", "Third_label")
    return {row["Recording"]: [int(row[n]) for n in nth if row[n]] for row in rows}


def numbers(example: dict) -> list[int]:
    return (np.flatnonzero(example["labels"]["cpsc"]) + 1).tolist()


def test_original_layout(tmp_path, build, examples):
    write_cpsc2018(tmp_path / "source", layout="original", records=18)
    builder = build("cpsc2018", tmp_path / "source")
    found, labels = examples(builder), reference(tmp_path / "source")
    assert set(found) == set(labels)
    assert max(map(len, labels.values())) == 2
    for name, (split, example) in found.items():
        data = scipy.io.loadmat(tmp_path / "source" / f"{name}.mat")["ECG"]["data"][0, 0]
        np.testing.assert_array_equal(example["ecg"], np.rint(1000 * data.T))
        assert numbers(example) == sorted(labels[name])
        assert example["patient_id"].decode() == name and example["report"] == b""
        assert split == read.split_of(example["fold"]) and example["lead_mask"].all()
    assert len({len(example["ecg"]) for _, example in found.values()}) > 5
    assert builder.info.metadata["classes"]["cpsc"][:3] == ["Normal", "AF", "I-AVB"]


def test_both_layouts_hold_the_same(tmp_path, build, examples):
    write_cpsc2018(tmp_path / "original", layout="original", records=9, max_seconds=10)
    write_cpsc2018(tmp_path / "challenge", layout="challenge", records=9, max_seconds=10)
    labels = reference(tmp_path / "original")
    found = examples(build("cpsc2018", tmp_path / "challenge", "--rate", "100"))
    for name, (split, example) in found.items():
        assert numbers(example) == sorted(labels[name])
        assert split == read.split_of(read.fold_of(name))
        record = wfdb.rdrecord(str(tmp_path / "challenge/training/cpsc_2018/g1" / name))
        assert len(example["ecg"]) == -(-record.sig_len // 5)
    sources = read.find_records(tmp_path / "original"), read.find_records(tmp_path / "challenge")
    for name in labels:
        (one,), (other,) = (read.example(source[name], 500, {}) for source in sources)
        np.testing.assert_array_equal(one["ecg"], other["ecg"])


def test_split_is_fixed_and_near_its_shares():
    names = [f"A{i:04d}" for i in range(1, 6878)]
    folds = [read.fold_of(name) for name in names]
    # The first ten as written down when the split was made: they must never change.
    assert folds[:10] == GOLDEN_FOLDS
    assert set(folds) == set(range(1, 26))
    shares = {s: np.mean([read.split_of(f) == s for f in folds]) for s in SHARES}
    assert all(abs(shares[split] - share) < 0.015 for split, share in SHARES.items())


SHARES = {"train": 0.72, "validation": 0.08, "test": 0.20}
GOLDEN_FOLDS = [22, 1, 13, 25, 13, 20, 18, 20, 6, 12]


def fails(source: Path, tmp_path: Path, capsys, status: int) -> str:
    arguments = ["cpsc2018", "--source", str(source), "--data_dir", str(tmp_path / "data")]
    assert prepare.main(arguments) == status
    assert not (tmp_path / "data").exists()
    return capsys.readouterr().err


def test_folders_that_cannot_be_told_are_refused(tmp_path, capsys):
    source = tmp_path / "source"
    write_cpsc2018(source / "a", layout="original", records=3, max_seconds=8)
    write_cpsc2018(source / "b", layout="challenge", records=3, max_seconds=8)
    assert "holds both layouts" in fails(source, tmp_path, capsys, 2)
    (source / "a" / "A0009.mat").write_bytes((source / "a" / "A0001.mat").read_bytes())
    assert "no REFERENCE.csv names A0009" in fails(source / "a", tmp_path, capsys, 2)
    (source / "c").mkdir()
    (source / "c" / "readme").touch()
    assert "neither REFERENCE.csv nor *.hea" in fails(source / "c", tmp_path, capsys, 2)
    (source / "d").mkdir()
    (source / "d" / "REFERENCE.csv").write_text("Recording,First_label\nA0001,10\n")
    assert "of A0001 are not numbers 1-9" in fails(source / "d", tmp_path, capsys, 2)
    (source / "d" / "REFERENCE.csv").write_text("Recording,First_label\nE0001,1\n")
    assert "not a CPSC2018 record name" in fails(source / "d", tmp_path, capsys, 2)


def test_two_files_of_one_name_are_refused(tmp_path, capsys):
    source = tmp_path / "source"
    write_cpsc2018(source / "a", layout="original", records=2, max_seconds=8)
    (source / "b").mkdir()
    (source / "b" / "A0001.mat").write_bytes((source / "a" / "A0002.mat").read_bytes())
    assert "a/A0001.mat and b/A0001.mat are of one name" in fails(source, tmp_path, capsys, 2)


def test_blank_rows_and_cut_rows_of_the_labels(tmp_path, capsys, build, examples):
    source = tmp_path / "source"
    write_cpsc2018(source, layout="original", records=2, max_seconds=8)
    path = source / "REFERENCE.csv"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.rstrip().rstrip(","), encoding="utf-8")
    assert "cells for 4 columns: is the file cut short?" in fails(source, tmp_path, capsys, 2)
    path.write_text(text + ",,,\n\n", encoding="utf-8-sig")
    assert len(examples(build("cpsc2018", source))) == 2


def test_bad_records_of_the_original_layout(tmp_path, capsys):
    source = tmp_path / "source"
    write_cpsc2018(source, layout="original", records=6, max_seconds=8)

    def replace(name: str, data: np.ndarray) -> None:
        scipy.io.savemat(source / f"{name}.mat", {"ECG": {"data": data}})

    (source / "A0001.mat").unlink()
    replace("A0002", np.zeros((4000, 12)))
    replace("A0003", np.zeros((12, 4000), np.int16))
    replace("A0004", np.full((12, 4000), 900.0))  # µV taken for mV
    (source / "A0005.mat").write_bytes((source / "A0005.mat").read_bytes()[:-500])
    error = fails(source, tmp_path, capsys, 1)
    assert "5 of 6 records can't be used" in error
    assert "record A0001: A0001.mat: no such file" in error
    assert "record A0002: A0002.mat: data of shape (4000, 12)" in error
    assert "record A0003: A0003.mat: data are integers" in error
    assert "record A0004: A0004.mat: a sample of 900.0 mV does not fit" in error
    assert "record A0005: A0005.mat: not a struct ECG with data" in error


def test_unknown_snomed_code_is_a_bad_record(tmp_path, capsys):
    write_cpsc2018(tmp_path / "source", layout="challenge", records=2, max_seconds=8)
    (tmp_path / "source" / "SHA256SUMS.txt").unlink()
    header = next((tmp_path / "source").rglob("A0002.hea"))
    header.write_text(header.read_text().replace("164889003", "164890007"))
    error = fails(tmp_path / "source", tmp_path, capsys, 1)
    assert "A0002.hea: #Dx: code '164890007' is none of CPSC2018's nine classes" in error


@pytest.mark.real_data
def test_real_original_layout(real_data, build, examples):
    source = real_data / "cpsc2018" / "original"
    found, labels = examples(build("cpsc2018", source)), reference(source)
    assert set(found) == set(labels)
    for name, (_, example) in found.items():
        assert numbers(example) == sorted(labels[name])
        limb = dict(zip(LEADS, example["ecg"].T.astype(float), strict=True))
        scale = limb["II"].std()
        # Einthoven and Goldberger: the structs' unnamed rows are in the order that we take.
        assert np.abs(limb["I"] + limb["III"] - limb["II"]).mean() < 0.02 * scale
        for lead, one, other in (("aVR", "I", "II"), ("aVL", "III", "I"), ("aVF", "II", "III")):
            sign = {"aVR": (-1, -1), "aVL": (-1, 1), "aVF": (1, 1)}[lead]
            derived = (sign[0] * limb[one] + sign[1] * limb[other]) / 2
            assert np.abs(limb[lead] - derived).mean() < 0.02 * scale


@pytest.mark.real_data
def test_real_challenge_layout(real_data, build, examples):
    source = real_data / "cpsc2018" / "training"
    found = examples(build("cpsc2018", source))
    assert len(found) == 14
    assert numbers(found["A0001"][1]) == [5] and numbers(found["A5215"][1])
    for name, (_, example) in found.items():
        record = wfdb.rdrecord(str(source / "cpsc_2018" / "g1" / name))
        assert record.sig_name == list(LEADS)
        np.testing.assert_array_equal(example["ecg"], np.rint(record.p_signal * 1000))
