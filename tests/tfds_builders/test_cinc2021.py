"""The Challenge's databases in their published folders."""

import collections
import re

import numpy as np
import pytest

from tfds_builders import prepare
from tfds_builders.cinc2021 import read
from tfds_builders.cinc2021.classes import CLASSES, SNOMED
from tfds_builders.simulated.layouts import write_cinc2021

GROUPS = "training"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cinc2021")
    write_cinc2021(folder)
    (folder / "SHA256SUMS.txt").unlink()
    return folder


@pytest.fixture
def source(published, tmp_path):
    """A copy that may be changed."""
    import shutil

    return shutil.copytree(published, tmp_path / "source")


def counted(folder):
    """Codes of all headers that the six usual databases have, by a search of their text alone."""
    found = collections.Counter()
    for database in read.USUAL:
        for path in (folder / "training" / database).rglob("*.hea"):
            line = re.search(r"^# ?Dx:(.*)$", path.read_text(), re.MULTILINE)
            assert line
            codes = set(line[1].replace(" ", "").split(","))
            found.update(codes)
            found.update({name for name, own in SNOMED.items() if codes & set(own)})
            found["records"] += 1
    return found


def of(found):
    """The same of what was prepared."""
    counts = collections.Counter(records=len(found))
    for _, example in found.values():
        counts.update(example["snomed"].decode().split(","))
        counts.update(CLASSES[k] for k in np.flatnonzero(example["labels"]["challenge"]))
    return counts


def test_counts_are_the_headers(published, build, examples):
    builder = build("cinc2021", published, "--rate", "100")
    found = examples(builder)
    assert of(found) == counted(published)
    assert dict(builder.info.metadata["databases"]) == dict.fromkeys(read.USUAL, 1)
    split, example = found["HR00001"]
    assert split == "test" and example["fold"] == read.fold_of("HR00001") == 22
    assert (example["age"], example["sex"], example["database"]) == (42, 0, b"ptb-xl")
    assert found["E00001"][1]["age"] == -1 and found["Q0001"][1]["sex"] == 1
    assert found["E00001"][1]["snomed"] == b"427172004,426783006"  # one was written twice
    assert not found["JS20001"][1]["labels"]["challenge"].any()


def test_ptb_xls_table_tells_patients_and_folds(source, build, examples):
    table = "ecg_id,patient_id,strat_fold\n1,15709.0,9\n"
    (source / GROUPS / "ptb-xl" / read.PATIENTS).write_text(table)
    split, example = examples(build("cinc2021", source, "--rate", "100"))["HR00001"]
    assert split == "validation" and example["fold"] == 9
    assert example["patient_id"] == b"ptb-xl/15709"


def bad(source, capsys, *options):
    data = source.parent / "data"
    arguments = ["cinc2021", "--source", str(source), "--rate", "100", "--data_dir", str(data)]
    try:
        status = prepare.main([*arguments, *options])
    except SystemExit as stop:
        status = stop.code
    assert status and not data.exists()
    return capsys.readouterr().err


def header(source, name):
    return next(source.rglob(f"{name}.hea"))


@pytest.mark.parametrize(
    ("pattern", "new", "message"),
    [
        (r"^#\s*Dx:.*\n", "", r"E00001\.hea: has no #Dx line"),
        (r"Dx:.*", "Dx: 426783006,AF", r"E00001\.hea: #Dx: 'AF' is no SNOMED CT code"),
        (r"Dx:.*", "Dx: ", r"E00001\.hea: #Dx: '' is no SNOMED CT code"),
        (r"Age:.*", "Age: old", r"E00001\.hea: #Age: 'old' is no number of years"),
        (r"Sex:.*", "Sex: 2", r"E00001\.hea: #Sex: '2' is neither Male nor Female"),
    ],
)
def test_a_bad_header(source, capsys, pattern, new, message):
    path = header(source, "E00001")
    text, edits = re.subn(pattern, new, path.read_text(), flags=re.M)
    assert edits == 1
    path.write_text(text)
    error = bad(source, capsys)
    assert re.search(message, error) and "1 of 6 records can't be used" in error


def test_an_unknown_folder(source, capsys):
    (source / GROUPS / "mimic").mkdir()
    assert "'mimic' is no database of the Challenge: there are cpsc_2018" in bad(source, capsys)


def test_a_record_of_another_database(source, capsys):
    for path in list((source / GROUPS / "georgia").rglob("E00001.*")):
        path.rename(path.with_name(path.name.replace("E00001", "Q0002")))
    assert "Q0002: not the name of a record of georgia" in bad(source, capsys)


def test_databases_by_option(source, capsys, build, examples):
    error = bad(source, capsys, "--databases", "ptb,own")
    assert "--databases: no 'own': there are cpsc_2018" in error and error.count("\n") == 1
    error = bad(source, capsys, "--databases", "ptb,st_petersburg_incart")
    assert "holds none of ptb, st_petersburg_incart" in error
    two = ("--databases", "georgia,ningbo")
    assert set(examples(build("cinc2021", source, *two, "--rate", "100"))) == {"E00001", "JS20001"}


@pytest.mark.parametrize("rows", ["1,x,3", "1,2,11", "2,3,4"])
def test_a_bad_table(source, capsys, rows):
    path = source / GROUPS / "ptb-xl" / read.PATIENTS
    path.write_text(f"ecg_id,patient_id,strat_fold\n{rows}\n")
    error = bad(source, capsys)
    assert "ptbxl_database.csv" in error and error.count("\n") == 1


@pytest.mark.real_data
def test_real_records(real_data, build, examples):
    folder = real_data / "cinc2021"
    found = examples(build("cinc2021", folder, "--rate", "100"))
    assert of(found) == counted(folder)
    leads = collections.Counter(int(e["lead_mask"].sum()) for _, e in found.values())
    assert leads[4] and leads[6] and leads[12]
    ptb = examples(build("cinc2021", folder, "--databases", "ptb", "--overwrite"))
    assert len(ptb["S0001"][1]["ecg"]) == 19_200  # 38,400 at 1000 Hz
