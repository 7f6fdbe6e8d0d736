"""Recordings of one's own: tables of any columns, splits, labels, and what is refused."""

import csv

import numpy as np
import pytest
from written_formats import write_csv, write_dicom, write_muse, write_wfdb

from ecg_jax.data import records
from tfds_builders import prepare
from tfds_builders.errors import SourceError
from tfds_builders.own import table
from tfds_builders.simulated.simulator import simulate

WRITERS = {".hea": write_wfdb, ".dcm": write_dicom, ".xml": write_muse, ".csv": write_csv}
COLUMNS = "id=Nr,path=File,report=Befund,patient=Patient,labels=Diagnoses,age=Age,sex=Sex"


@pytest.fixture(scope="module")
def ecgs() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [simulate(rng, findings=["NORM", "SR"], seconds=6).ecg_uv for _ in range(12)]


@pytest.fixture
def source(tmp_path, ecgs):
    """Twelve recordings of ten patients in four formats, and their table."""
    folder = tmp_path / "ward"
    (folder / "ecg").mkdir(parents=True)
    rows = []
    for i, ecg in enumerate(ecgs):
        suffix = list(WRITERS)[i % 4]
        WRITERS[suffix](folder / "ecg" / f"r{i}{suffix}", ecg, 500)
        names = ["sinus rhythm", "afib; lvh", "['sinus rhythm', 'lvh']", ""]
        row = {"Nr": f"no {i}", "File": f"ecg/r{i}{suffix}", "Befund": f"Sinus rhythm, no {i}"}
        row |= {
            "Patient": f"p{i % 10}",
            "Diagnoses": names[i % 4],
            "Age": 50 + i,
            "Sex": "FM"[i % 2],
        }
        row |= {"lvh": i % 2, "afib": "yes" if i == 3 else "no", "part": "train"}
        rows.append(row)
    write_table(folder, rows)
    return folder


def rows_of(folder) -> list[dict]:
    with (folder / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write_table(folder, rows) -> None:
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def run(source, *options, columns=COLUMNS) -> int:
    arguments = ["own", "--source", source, "--table", source / "table.csv", "--columns", columns]
    arguments += ["--dataset", "ward", "--rate", 100, "--data_dir", source.parent / "data"]
    stated = ["--file_rate", 500, "--file_units", "uV"]
    return prepare.main([str(a) for a in [*arguments, *stated, *options]])


def load(source, split) -> records.Records:
    return records.load(source.parent / "data", "ward", 100, split)


def test_what_was_given_is_what_is_read(source, ecgs, capsys):
    assert run(source) == 0
    assert "splits drawn by patient, seed 0" in capsys.readouterr().out
    splits = {name: load(source, name) for name in table.SPLITS}
    assert sum(map(len, splits.values())) == 12 and all(map(len, splits.values()))
    patients = [set(split.patient_id) for split in splits.values()]
    assert not patients[0] & patients[1] and not patients[1] & patients[2]
    train = splits["train"]
    assert train.dataset == "ward" and train.classes == {"labels": ["afib", "lvh", "sinus rhythm"]}
    row = {name: i for i, name in enumerate(train.record_id)}
    for name, i in row.items():
        number = int(name.removeprefix("no "))
        assert train.report[i] == f"Sinus rhythm, {name}"
        expected = ["001", "110", "011", "000"][number % 4]
        assert "".join(map(str, train.labels["labels"][i].astype(int))) == expected
        assert train.person[i].tolist() == [50 + number, 1 - number % 2]
        assert train.lead_mask[i].all() and train.length[i] == 600
        signal = ecgs[number][::5][50:550].astype(int)
        assert np.abs(train.ecg[i][50:550].astype(int) - signal).max() < 150  # filtered at 50 Hz


def test_labels_in_columns_and_splits_that_are_given(source):
    rows = rows_of(source)
    for i, row in enumerate(rows):
        row["part"] = ["Train", "val", "test"][i % 10 % 3]
    write_table(source, rows)
    said = "id=Nr,path=File,patient=Patient,labels=lvh|afib,split=part"
    assert run(source, columns=said) == 0
    train = load(source, "train")
    assert train.classes["labels"] == ["afib", "lvh"] and not any(train.report)
    assert train.labels["labels"].tolist() == [
        [name == "no 3", int(name[3:]) % 2 == 1] for name in train.record_id
    ]


def test_a_pattern_for_the_path_and_no_labels(source, capsys):
    said = "id=Nr,path={File},report=Befund|part"
    assert run(source, columns=said) == 0
    assert "no patient column" in capsys.readouterr().out
    train = load(source, "train")
    assert train.classes == {} and train.report[0].endswith(". train.")


def test_again(source, capsys):
    assert run(source) == 0 and run(source) == 0
    assert "ward is already prepared" in capsys.readouterr().out
    assert run(source, "--seed", "1") == 2
    assert "was prepared from other files" in capsys.readouterr().err


def test_a_bad_recording_is_named(source, capsys):
    (source / "ecg" / "r1.dcm").write_bytes(b"nothing")
    assert run(source) == 1
    error = capsys.readouterr().err
    assert "record no 1: ecg/r1.dcm: of no known format" in error and error.count("record no") == 1
    assert not (source.parent / "data").exists()
    assert run(source, "--skip_bad") == 0


def change(rows: list[dict], row: int, **cells: str) -> list[dict]:
    return [r | cells if i == row else r for i, r in enumerate(rows)]


@pytest.mark.parametrize(
    ("cells", "line"),
    [
        ({"Nr": "no 1"}, "id 'no 1' occurs 2 times"),
        ({"File": "ecg/r1.dcm"}, "path 'ecg/r1.dcm' occurs 2 times"),
        ({"File": "../secret"}, "leads out of --source"),
        ({"File": "/etc/passwd"}, "leads out of --source"),
        ({"Patient": ""}, "without patient"),
        ({"Age": "old"}, "age 'old' is not in years"),
        ({"Sex": "x"}, "sex 'x': write F and M"),
        ({"Diagnoses": "[a, b]"}, "not a list of quoted texts"),
    ],
)
def test_tables_that_leave_doubt(source, cells, line, capsys):
    write_table(source, change(rows_of(source), 0, **cells))
    assert run(source) == 2
    error = capsys.readouterr().err
    assert line in error and error.count("\n") == 1 and not (source.parent / "data").exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("id=a", "lacks path"),
        ("id=a,path=b,pth=c", "unknown field 'pth'"),
        ("id=a,path=b,id=c", "id is said twice"),
        ("id=a,path", "write FIELD=COLUMN"),
    ],
)
def test_columns(text, line):
    with pytest.raises(SourceError, match=line):
        table.columns(text)


def test_a_patient_in_two_splits(source, capsys):
    rows = change(rows_of(source), 10, part="test")  # of patient p0, as the first
    write_table(source, change(rows, 1, part="validation"))
    assert run(source, columns=COLUMNS + ",split=part") == 2
    assert "patient 'p0' is in train and in test" in capsys.readouterr().err
    assert run(source, columns="id=Nr,path=File,split=Nr") == 2
    assert "split 'no 0' is none of train" in capsys.readouterr().err
    assert run(source, columns="id=Nr,path=File,split=nothing") == 2
    assert "lacks column 'nothing'" in capsys.readouterr().err


def test_rare_labels_are_left_out_and_named(source, capsys):
    assert run(source, "--least", "4") == 0
    assert "left out: afib (3)" in capsys.readouterr().out
    assert load(source, "train").classes["labels"] == ["lvh", "sinus rhythm"]


def test_splits_do_not_depend_on_the_order():
    patients = [f"p{i}" for i in range(20)]
    assert table.draw(patients, 3) == table.draw(patients[::-1] * 2, 3) != table.draw(patients, 4)
    counts = [list(table.draw(patients, 3).values()).count(split) for split in table.SPLITS]
    assert counts == [14, 2, 4]
    with pytest.raises(SourceError, match="2 patients can't be divided"):
        table.draw(["a", "b"], 0)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["own", "--source", "."], "own needs --table"),
        (["ptb_xl", "--table", "x"], "--table applies to own only"),
        (["own", "--source", ".", "--table", "x", "--columns", "x", "--dataset", "ptb_xl"], "own"),
        (["own", "--source", ".", "--table", "x", "--columns", "x", "--dataset", "A b"], "small"),
    ],
)
def test_arguments(arguments, line, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        prepare.main([*arguments, "--data_dir", str(tmp_path)])
    assert end.value.code == 2 and line in capsys.readouterr().err
