"""MIMIC-IV-ECG: its lead order, gaps, reports, labels and splits; what a damaged copy is told by.

What every builder must refuse is tried in test_every_builder.py. `ECG_JAX_MIMIC_RECORDS=3000` tries
it on so many records.
"""

import csv
import os
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ecg_jax.data.classes import SUPERCLASS
from tfds_builders import prepare
from tfds_builders.archive import open_archive
from tfds_builders.errors import RecordError, SourceError
from tfds_builders.gaps import bridged
from tfds_builders.header import parse_header
from tfds_builders.leads import LEADS
from tfds_builders.mimic_iv_ecg import read, statements
from tfds_builders.mimic_iv_ecg.table import MACHINE, RECORDS, Table, place
from tfds_builders.samples import decode
from tfds_builders.simulated.cases import draw_cases
from tfds_builders.simulated.mimic_iv_ecg import (
    KINDS,
    MISSING,
    ORDER,
    findings_of,
    write_mimic_iv_ecg,
)

# A row of each table, and what stands in a header, as published.
LISTED = "10000032,40689238,40689238,2180-07-23 08:44:00,files/p1000/p10000032/s40689238/40689238"
MEASURED = (
    "10000032,40689238,6848296,2180-07-23 08:44:00,Sinus rhythm,Possible right atrial abnormality,,"
    "Borderline ECG,,,,,,,,,,,,,,,0.005-150 Hz,60 Hz notch Baseline filter,"
    "659,40,128,170,258,518,81,77,79"
)
HEADER = """40689238 12 500 5000 08:44:00 23/07/2180
40689238.dat 16 200.0(0)/mV 16 0 -31 9616 0 I
40689238.dat 16 200.0(0)/mV 16 0 15 17944 0 aVF
40689238.dat 16 200.0(0)/mV 16 0 -28 7176 0 aVL
# <subject_id>: 10000032
"""


COUNT = int(os.environ.get("ECG_JAX_MIMIC_RECORDS", "36"))
TURNS = COUNT // KINDS  # every trap is in so many of them


def split_of(subject: int) -> str:
    return read.split_of(read.fold_of(subject))


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mimic")
    write_mimic_iv_ecg(folder, records=COUNT, split=split_of)
    return folder


@pytest.fixture
def source(published, tmp_path) -> Path:
    shutil.copytree(published, tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture(scope="module")
def built(published, tmp_path_factory):
    """(builder, {record id: (split, example)}) of the whole folder at 500 Hz."""
    import tensorflow_datasets as tfds

    data_dir = tmp_path_factory.mktemp("data")
    assert prepare.main(arguments(published, data_dir)) == 0
    builder = tfds.builder_from_directory(next((data_dir / "mimic_iv_ecg" / "rate500").iterdir()))
    examples = {
        example["record_id"].decode(): (split, example)
        for split in builder.info.splits
        for example in builder.as_data_source(split)
    }
    return builder, examples


def arguments(source: Path, data_dir: Path, *options: str) -> list[str]:
    return ["mimic_iv_ecg", "--source", str(source), "--data_dir", str(data_dir), *options]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def header_of(source: Path, row: dict[str, str]) -> Path:
    return source / f"{row['path']}.hea"


def refused(source: Path, capsys, status: int = 1) -> str:
    data_dir = source.parent / "data"
    assert prepare.main(arguments(source, data_dir, "--rate", "100")) == status
    assert not data_dir.exists()
    return capsys.readouterr().err


def test_the_published_rows(tmp_path):
    from tfds_builders.mimic_iv_ecg.table import DEVICE, LINES, MEASUREMENTS

    (tmp_path / RECORDS).write_text(f"subject_id,study_id,file_name,ecg_time,path\n{LISTED}\n")
    columns = ("subject_id,study_id,cart_id,ecg_time", *LINES, *DEVICE[1:], *MEASUREMENTS)
    (tmp_path / MACHINE).write_text(f"{','.join(columns)}\n{MEASURED}\n")
    row = Table(tmp_path).row(0)
    assert row.stem == LISTED.split(",")[-1]
    assert row.lines == ("Sinus rhythm", "Possible right atrial abnormality", "Borderline ECG")
    assert row.measurements.tolist() == [659, 40, 128, 170, 258, 518, 81, 77, 79]
    assert row.device == ("6848296", "0.005-150 Hz", "60 Hz notch Baseline filter")
    report = statements.read_report(row.lines)
    assert report.text == "Sinus rhythm. Possible right atrial abnormality. Borderline ECG."
    assert report.certainty == {"SR": statements.STATED, "RAO/RAE": statements.POSSIBLE}


def test_the_published_header():
    header = parse_header(HEADER.replace(" 12 ", " 3 "), Path("40689238.hea"))
    assert (header.rate, header.num_samples) == (500, 5000)
    assert [signal.name for signal in header.signals] == ["I", "aVF", "aVL"]
    assert [signal.checksum for signal in header.signals] == [9616, 17944, 7176]
    assert {(s.gain, s.baseline, s.unit) for s in header.signals} == {(200, 0, "mV")}
    assert header.comments == ("# <subject_id>: 10000032",)


def test_leads_are_placed_by_name(published, built):
    for row in rows(published / RECORDS):
        data = header_of(published, row).with_suffix(".dat").read_bytes()
        samples = decode(data, "16", 60_000).reshape(5000, 12)
        _, example = built[1][row["study_id"]]
        for k, lead in enumerate(ORDER):
            i = LEADS.index(lead)
            known = samples[:, k] != MISSING
            if example["lead_mask"][i]:
                np.testing.assert_array_equal(example["ecg"][known, i], 5 * samples[known, k])


def test_the_order_of_another_dataset_is_told(source, capsys):
    """Peers take aVF for aVL: the limb leads contradict each other then."""
    (source / "SHA256SUMS.txt").unlink()
    header = header_of(source, rows(source / RECORDS)[1])
    text = header.read_text()
    assert text.index("aVF") < text.index("aVL")
    swapped = text.replace("aVF", "x").replace("aVL", "aVF").replace("x", "aVL")
    header.write_text(swapped)
    assert "they fit with leads aVF and aVL exchanged" in refused(source, capsys)


def test_gaps_are_bridged_or_masked_and_counted(published, built):
    builder, examples = built
    assert all(example["ecg"].dtype == np.int16 for _, example in examples.values())
    seen = {"short": 0, "long": 0}
    for number, row in enumerate(rows(published / RECORDS), start=1):
        _, example = examples[row["study_id"]]
        missing = dict(zip(LEADS, example["missing_samples"].tolist(), strict=True))
        masked = {
            lead for lead, there in zip(LEADS, example["lead_mask"], strict=True) if not there
        }
        if number % 12 == 3:
            assert missing == {lead: 65 if lead == "V3" else 40 for lead in LEADS} and not masked
            line = example["ecg"][1000:1040].astype(int)
            assert (np.abs(np.diff(line, n=2, axis=0)) <= 1).all() and line.any()
            assert (example["ecg"][:26, 8] == example["ecg"][25, 8]).all()
            seen["short"] += 1
        elif number % 12 == 6:
            assert masked == {"aVL", "V1", "V6"} and not example["ecg"][:, [4, 6, 11]].any()
            assert (missing["aVL"], missing["V1"], missing["V6"]) == (5000, 1500, 5000)
            seen["long"] += 1
        else:
            assert not masked and not any(missing.values())
    assert seen == {"short": TURNS, "long": TURNS}
    metadata = builder.info.metadata
    assert metadata["leads_masked_for_gaps"] == 3 * TURNS
    assert metadata["leads_bridged"] == 12 * TURNS and metadata["max_missing"] == 0.05
    assert metadata["samples_bridged"] == TURNS * (11 * 40 + 65)


def test_bridging_by_hand():
    samples = np.array([[9, 1], [9, 2], [2, 9], [9, 9], [6, 5], [9, 9]], np.int16)
    gaps = samples == 9
    expected = [[2, 1], [2, 2], [2, 3], [4, 4], [6, 5], [6, 5]]
    np.testing.assert_array_equal(bridged(samples, gaps), expected)
    assert bridged(samples, np.zeros_like(gaps)) is samples


def test_a_record_without_any_samples_is_named(source, capsys):
    (source / "SHA256SUMS.txt").unlink()
    header = header_of(source, rows(source / RECORDS)[1])
    np.full(60_000, MISSING, "<i2").tofile(header.with_suffix(".dat"))
    checksum = -32_768 * 5000 % 65_536
    text = re.sub(r"^((?:\S+ ){6})\d+ 0 ", rf"\g<1>{checksum} 0 ", header.read_text(), flags=re.M)
    header.write_text(text)
    assert "samples are missing in all of its leads" in refused(source, capsys)


def test_reports_flags_and_measurements(published, built):
    builder, examples = built
    flags = builder.info.metadata["quality"]
    empty = 0
    for number, row in enumerate(rows(published / MACHINE), start=1):
        _, example = examples[row["study_id"]]
        text = example["report"].decode()
        raised = {flags[k] for k in np.flatnonzero(example["quality"])}
        assert "---" not in text and "Uncertain" not in text and "missing" not in text
        empty += not text
        if number % 12 == 9:
            assert not text and raised == {"leads_missing", "unsuitable"}
        elif number % 12 in (1, 7):
            assert text and len(raised) == 1
        else:
            assert text and not raised
            assert text.split(".")[0] == row["report_0"] and not row["report_1"]
        measured = example["measurements"]
        assert np.isnan(measured[[1, 2, 6]]).all() == (number % 5 == 0)
        assert measured[0] == float(row["rr_interval"])
    assert empty == builder.info.metadata["without_findings"] == TURNS
    assert builder.info.metadata["flagged"]["unsuitable"] == TURNS


def test_labels_are_the_simulated_findings(published, built):
    """Every finding that was simulated is read back from the machine's words for it."""
    classes = read.classes()
    for case, row in zip(draw_cases(COUNT, 0), rows(published / MACHINE), strict=True):
        labels = built[1][row["study_id"]][1]["labels"]
        own = {classes["statements"][k] for k in np.flatnonzero(labels["statements"])}
        found = {classes["super"][k] for k in np.flatnonzero(labels["super"])}
        assert own == (set() if case.record % 12 == 9 else findings_of(case)[1])
        assert {SUPERCLASS[code] for code in own if code in SUPERCLASS} == found


def test_splits_are_by_subject_and_the_same_for_a_part(published, built, tmp_path):
    splits = {
        row["study_id"]: split_of(int(row["subject_id"])) for row in rows(published / RECORDS)
    }
    assert {key: split for key, (split, _) in built[1].items()} == splits
    assert set(splits.values()) == {"train", "validation", "test"}
    share = [split_of(subject) for subject in range(10_000_000, 10_020_000)]
    assert 0.008 < share.count("test") / len(share) < 0.012
    assert 0.008 < share.count("validation") / len(share) < 0.012
    assert read.fold_of(10000032) == 5  # on any machine


def test_a_zip_is_read_as_it_lies(published, built, tmp_path):
    import tensorflow_datasets as tfds

    archive = tmp_path / "mimic-iv-ecg-1.0.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        for file in sorted(published.rglob("*")):
            if file.is_file():
                made.write(file, f"mimic-iv-ecg-1.0/{file.relative_to(published)}")
    data_dir = tmp_path / "data"
    assert prepare.main(arguments(archive, data_dir)) == 0
    builder = tfds.builder_from_directory(next((data_dir / "mimic_iv_ecg" / "rate500").iterdir()))
    for key in ("source_sha256", "files_verified", "flagged", "samples_bridged"):
        assert builder.info.metadata[key] == built[0].info.metadata[key]
    count = 0
    for split in builder.info.splits:
        for example in builder.as_data_source(split):
            same = built[1][example["record_id"].decode()][1]
            np.testing.assert_array_equal(example["ecg"], same["ecg"])
            assert example["report"] == same["report"]
            count += 1
    assert count == len(built[1])
    assert prepare.main(arguments(archive, data_dir)) == 0  # already there


def test_a_damaged_zip(published, tmp_path, capsys):
    archive = tmp_path / "part.zip"
    with zipfile.ZipFile(archive, "w") as made:
        for file in sorted(published.rglob("*")):
            if file.is_file():
                made.write(file, str(file.relative_to(published)))
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as made:
        place_of = {info.filename: info.header_offset + 200 for info in made.infolist()}
    name = rows(published / RECORDS)[1]["path"] + ".dat"
    data[place_of[name]] ^= 0xFF
    archive.write_bytes(data)
    assert "damaged in the archive" in refused(archive, capsys)
    for table in (MACHINE, "SHA256SUMS.txt"):
        other = tmp_path / f"{table}.zip"
        other.write_bytes(data)
        with other.open("r+b") as file:
            file.seek(place_of[table])
            file.write(b"\0")
        error = refused(other, capsys, 2)
        assert f"{table}: damaged in the archive" in error and error.count("\n") == 1
    (tmp_path / "half.zip").write_bytes(data[: len(data) // 2])
    assert "not a zip archive that can be read" in refused(tmp_path / "half.zip", capsys, 2)
    with pytest.raises(SourceError, match=r"holds no record_list\.csv"):
        with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
            pass
        open_archive(tmp_path / "empty.zip", RECORDS)


def test_a_record_of_another_subject(source, capsys):
    (source / "SHA256SUMS.txt").unlink()
    row = rows(source / RECORDS)[1]
    header = header_of(source, row)
    header.write_text(header.read_text().replace(row["subject_id"], "19999999"))
    said = f"is of subject 19999999, record_list.csv says {row['subject_id']}"
    assert said in refused(source, capsys)
    header.write_text(header.read_text().split("#")[0])
    assert "is of no subject" in refused(source, capsys)


def test_a_truncated_copy_is_told_record_by_record(source, capsys):
    listed = rows(source / RECORDS)
    gone = [header_of(source, row) for row in listed[20:]]
    for header in gone:
        shutil.rmtree(header.parent)
    data = header_of(source, listed[2]).with_suffix(".dat")
    data.write_bytes(data.read_bytes()[:-1000])
    error = refused(source, capsys)
    assert f"{len(gone) + 1} of {len(listed)} records" in error
    assert all(f"record {header.stem}: " in error for header in [*gone, data])


def test_files_that_no_table_lists(source, capsys):
    (source / "SHA256SUMS.txt").unlink()
    header = header_of(source, rows(source / RECORDS)[1])
    other = source / "files/p1999/p19999999/s49999999"
    other.mkdir(parents=True)
    shutil.copy(header, other / "49999999.hea")
    error = refused(source, capsys)
    assert f"1 of {len(rows(source / RECORDS)) + 1} records" in error
    assert "s49999999/49999999.hea: there, but no record of the dataset is listed so" in error


def change(path: Path, number: int, column: str, value: str | None) -> None:
    """Sets a cell of a row, or takes the row out."""
    table = rows(path)
    columns = list(table[0])
    if value is None:
        del table[number]
    else:
        table[number][column] = value
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)


def test_a_record_without_a_row_of_measurements(source, capsys):
    (source / "SHA256SUMS.txt").unlink()
    study = rows(source / MACHINE)[4]["study_id"]
    change(source / MACHINE, 4, "", None)
    said = f"record {study}: listed in record_list.csv, but not in machine_measurements.csv"
    assert said in refused(source, capsys)


@pytest.mark.parametrize(
    ("table", "column", "value", "said"),
    [
        (RECORDS, "path", "files/p1000/p10000032/s40689238/40689238", "are not those of study"),
        (RECORDS, "path", "../../etc/passwd", "are not those of study"),
        (RECORDS, "subject_id", "abc", "is not a whole number"),
        (MACHINE, "subject_id", "10000032", "is of subject 10000032, record_list.csv says"),
        (MACHINE, "rr_interval", "659 ms", "is not a whole number"),
    ],
)
def test_a_table_that_cannot_be_right(source, capsys, table, column, value, said):
    (source / "SHA256SUMS.txt").unlink()
    change(source / table, 5, column, value)
    error = refused(source, capsys, 2)
    assert said in error and "line 7" in error and error.count("\n") == 1


def test_a_table_that_is_not_the_published_one(source, capsys):
    with (source / MACHINE).open("a") as file:
        file.write("\n")
    assert "machine_measurements.csv: SHA-256" in refused(source, capsys, 2)


def test_a_part_of_the_records_needs_no_cut_of_the_measurements(source, tmp_path):
    (source / "SHA256SUMS.txt").unlink()
    row = rows(source / RECORDS)[0]
    change(source / RECORDS, 0, "", None)
    shutil.rmtree(header_of(source, row).parent)
    assert prepare.main(arguments(source, tmp_path / "data", "--rate", "100")) == 0


def test_places():
    assert place(LISTED.split(",")[-1] + ".hea") == (10000032, 40689238, ".hea")
    for path in (
        "files/p1001/p10000032/s40689238/40689238.hea",
        "files/p1000/x.hea",
        "/etc/passwd",
    ):
        assert place(path) is None


def test_bytes_that_no_record_has(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(RECORDS, b"")
        made.writestr("bomb.dat", bytes(1 << 16))
    monkeypatch.setattr("tfds_builders.archive.MAX_BYTES", 1 << 10)
    with pytest.raises(RecordError, match="which no record has"):
        (open_archive(tmp_path / "a.zip", RECORDS) / "bomb.dat").read_bytes()
