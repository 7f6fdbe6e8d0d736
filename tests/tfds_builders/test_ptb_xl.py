"""PTB-XL: signals, tasks, likelihoods, folds; the real subset where there is one."""

import ast
import csv
import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
import wfdb

from ecg_jax.data import records
from ecg_jax.errors import UserError
from tfds_builders import prepare
from tfds_builders.build import VERSION
from tfds_builders.errors import SourceError
from tfds_builders.leads import LEADS
from tfds_builders.ptb_xl.ptb_xl_dataset_builder import Builder
from tfds_builders.ptb_xl.scp import NUM_CLASSES, load_statements
from tfds_builders.simulated.layouts import write_ptb_xl


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ptb-xl")
    write_ptb_xl(folder, records=24, seed=3)
    return folder


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "ptbxl_database.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rewrite(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "ptbxl_database.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "SHA256SUMS.txt").unlink(missing_ok=True)


def test_every_record_is_as_published(published, build, examples):
    builder = build("ptb_xl", published)
    found = examples(builder)
    rows = {row["ecg_id"]: row for row in table(published)}
    assert set(found) == set(rows)
    metadata = builder.info.metadata
    assert metadata["rate"] == 500 and metadata["units"] == "uV"
    assert metadata["leads"] == list(LEADS) and metadata["bad_records"] == {}
    for ecg_id, (split, example) in found.items():
        row = rows[ecg_id]
        record = wfdb.rdrecord(str(published / row["filename_hr"]))
        assert [name.casefold() for name in record.sig_name] == [x.casefold() for x in LEADS]
        np.testing.assert_array_equal(example["ecg"], np.rint(record.p_signal * 1000))
        assert example["ecg"].dtype == np.int16 and example["lead_mask"].all()
        fold = int(row["strat_fold"])
        assert example["fold"] == fold
        assert split == {9: "validation", 10: "test"}.get(fold, "train")
        assert example["report"].decode() == row["report"]
        assert example["patient_id"].decode() + ".0" == row["patient_id"]
        assert example["age"] == float(row["age"]) and example["sex"] == int(row["sex"])
        codes = ast.literal_eval(row["scp_codes"])
        order = metadata["classes"]["all"]
        stated = {c: x for c, x in zip(order, example["scp_likelihood"], strict=True) if x >= 0}
        assert stated == codes
        present = np.array(order)[example["labels"]["all"] == 1].tolist()
        assert present == sorted(codes)


def test_tasks_follow_the_published_mapping(published, build, examples):
    """Against a mapping written out by hand for a few statements."""
    rows = table(published)
    folder = published.with_name("mapped")
    shutil.copytree(published, folder)
    rows[0]["scp_codes"] = "{'ASMI': 35.0, 'SR': 0.0, 'NDT': 0.0, 'PVC': 100.0}"
    rows[1]["scp_codes"] = "{'SR': 0.0}"
    rows[2]["scp_codes"] = "{'LPFB': 0.0, '3AVB': 80.0, 'LVH': 50.0, 'AFIB': 0.0}"
    rewrite(folder, rows)
    builder = build("ptb_xl", folder, "--rate", "100")
    classes = builder.info.metadata["classes"]
    assert classes["super"] == ["CD", "HYP", "MI", "NORM", "STTC"]
    assert {task: len(codes) for task, codes in classes.items()} == NUM_CLASSES
    assert all(codes == sorted(codes) for codes in classes.values())
    assert set(builder.info.metadata["descriptions"]) >= set().union(*classes.values())

    def labels(record: str) -> dict[str, list[str]]:
        example = found[record][1]
        return {
            task: [c for c, there in zip(codes, example["labels"][task], strict=True) if there]
            for task, codes in classes.items()
        }

    found = examples(builder)
    assert labels(rows[0]["ecg_id"]) == {
        "super": ["MI", "STTC"],
        "sub": ["AMI", "STTC"],
        "form": ["NDT", "PVC"],
        "rhythm": ["SR"],
        "diagnostic": ["ASMI", "NDT"],
        "all": ["ASMI", "NDT", "PVC", "SR"],
    }
    assert labels(rows[1]["ecg_id"]) == {
        **{task: [] for task in ("super", "sub", "form", "diagnostic")},
        "rhythm": ["SR"],
        "all": ["SR"],
    }
    assert labels(rows[2]["ecg_id"]) == {
        "super": ["CD", "HYP"],
        "sub": ["LAFB/LPFB", "LVH", "_AVB"],
        "form": [],
        "rhythm": ["AFIB"],
        "diagnostic": ["3AVB", "LPFB", "LVH"],
        "all": ["3AVB", "AFIB", "LPFB", "LVH"],
    }


def test_columns_are_read_by_name(published, build, examples):
    rows = table(published)
    folder = published.with_name("columns")
    shutil.copytree(published, folder)
    rewrite(folder, [dict(reversed(row.items())) for row in rows])
    with (folder / "scp_statements.csv").open(encoding="utf-8", newline="") as file:
        statements = list(csv.DictReader(file))
    with (folder / "scp_statements.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(reversed(statements[0])))
        writer.writeheader()
        writer.writerows(reversed(statements))
    assert load_statements(folder / "scp_statements.csv") == load_statements(
        published / "scp_statements.csv"
    )
    assert set(examples(build("ptb_xl", folder, "--rate", "100"))) == {r["ecg_id"] for r in rows}


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("strat_fold", "11", "line 2: strat_fold 11 is not in 1-10"),
        ("patient_id", "x", "line 2: patient_id 'x' is not a whole number"),
        ("patient_id", "1e3", "line 2: patient_id '1e3' is not a whole number"),
        ("strat_fold", "9.7", "line 2: strat_fold '9.7' is not a whole number"),
        ("strat_fold", "inf", "line 2: strat_fold 'inf' is not a whole number"),
        ("filename_hr", "../00001_hr", "leaves the folder"),
        ("filename_hr", "records500/00000/00002_hr", "rows have only 23 different filename_hr"),
        ("ecg_id", "2", "rows have only 23 different ecg_id"),
    ],
)
def test_tables_that_cannot_be_trusted_are_refused(
    published, tmp_path, capsys, column, value, message
):
    folder = tmp_path / "source"
    shutil.copytree(published, folder)
    rows = table(folder)
    rows[0][column] = value
    rewrite(folder, rows)
    status = prepare.main(["ptb_xl", "--source", str(folder), "--data_dir", str(tmp_path / "d")])
    assert status == 2 and not (tmp_path / "d").exists()
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("sex", "0.5", "sex '0.5' is neither 0 nor 1 nor empty"),
        ("sex", "nan", "sex 'nan' is neither"),
        ("sex", "inf", "sex 'inf' is neither"),
        ("sex", "99999999999", "sex '99999999999' is neither"),
        ("age", "1,0", "age '1,0' is not a plain number"),
        ("age", "inf", "age 'inf' is not a plain number"),
        ("age", "301", "age 301 is not in 0-300"),
        ("filename_hr", "records500/" + "a" * 300, "File name too long"),
    ],
)
def test_cells_of_one_record(published, tmp_path, capsys, column, value, message):
    folder = tmp_path / "source"
    shutil.copytree(published, folder)
    rows = table(folder)
    rows[4][column] = value
    rewrite(folder, rows)
    arguments = ["ptb_xl", "--source", str(folder), "--data_dir", str(tmp_path / "d")]
    assert prepare.main(arguments) == 1
    error = capsys.readouterr().err
    assert f"record {rows[4]['ecg_id']}: " in error and message in error
    assert prepare.main([*arguments, "--skip_bad"]) == 0


def test_ids_keep_all_their_digits(published, tmp_path, build, examples):
    folder = tmp_path / "source"
    shutil.copytree(published, folder)
    rows = table(folder)
    rows[4]["patient_id"] = "12345678901234567.0"
    rows[4]["age"] = "nan"
    rewrite(folder, rows)
    _, example = examples(build("ptb_xl", folder, "--rate", "100"))[rows[4]["ecg_id"]]
    assert example["patient_id"] == b"12345678901234567" and np.isnan(example["age"])


def test_a_byte_order_mark_and_blank_rows_are_no_matter(published, tmp_path, build, examples):
    folder = tmp_path / "source"
    shutil.copytree(published, folder)
    (folder / "SHA256SUMS.txt").unlink()
    for name in ("ptbxl_database.csv", "scp_statements.csv"):
        text = (folder / name).read_text(encoding="utf-8")
        commas = "," * text.split("\n")[0].count(",")
        text = text.rstrip("\n") + f"\n{commas}\n\n"
        (folder / name).write_text(text, encoding="utf-8-sig")
    assert len(examples(build("ptb_xl", folder, "--rate", "100"))) == 24


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("heart_axis", "report", "column 'report' occurs twice"),
        (
            r",records500/00000/00024_hr\s*\Z",
            "",
            "line 25: 27 cells for 28 columns: is the",
        ),
        (r"records500/00000/00024_hr\s*\Z", '"rec', "not a table"),
    ],
)
def test_tables_that_are_cut_or_ambiguous(published, tmp_path, capsys, old, new, message):
    folder = tmp_path / "source"
    shutil.copytree(published, folder)
    (folder / "SHA256SUMS.txt").unlink()
    path = folder / "ptbxl_database.csv"
    text, count = re.subn(old, new, path.read_text(encoding="utf-8"), count=1)
    assert count
    path.write_text(text, encoding="utf-8")
    arguments = ["ptb_xl", "--source", str(folder), "--data_dir", str(tmp_path / "d")]
    assert prepare.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_files_that_only_the_digests_name(published, tmp_path, capsys):
    folder = tmp_path / "source"
    shutil.copytree(published, folder)
    sums = (folder / "SHA256SUMS.txt").read_text(encoding="utf-8")
    rewrite(folder, table(folder)[:-1])
    (folder / "SHA256SUMS.txt").write_text(re.sub(".*ptbxl_database.csv\n", "", sums))
    for file in folder.rglob("00024_hr.*"):
        file.unlink()
    arguments = ["ptb_xl", "--source", str(folder), "--data_dir", str(tmp_path / "d")]
    assert prepare.main(arguments) == 1
    assert ": listed in SHA256SUMS.txt, but not there" in capsys.readouterr().err


def test_files_that_no_row_names(published, tmp_path, capsys):
    folder = tmp_path / "source"
    shutil.copytree(published, folder)
    rewrite(folder, table(folder)[:-1])
    arguments = ["ptb_xl", "--source", str(folder), "--data_dir", str(tmp_path / "d")]
    assert prepare.main(arguments) == 1
    assert "00024_hr.hea: there, but no record" in capsys.readouterr().err.replace("dat, ", "")


def test_patient_in_two_splits_is_refused(published, tmp_path, capsys):
    folder = tmp_path / "source"
    shutil.copytree(published, folder)
    rows = table(folder)
    train = next(row for row in rows if row["strat_fold"] == "1")
    test = next(row for row in rows if row["strat_fold"] == "10")
    test["patient_id"] = train["patient_id"]
    rewrite(folder, rows)
    status = prepare.main(["ptb_xl", "--source", str(folder), "--data_dir", str(tmp_path / "d")])
    patient = train["patient_id"].removesuffix(".0")
    assert status == 2
    assert f"patients in more than one split: {patient}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ("{'NOPE': 100.0}", "unknown statement NOPE"),
        ("{'NORM': 101.0}", "likelihood outside 0-100"),
        ("{'NORM': 1" + "0" * 400 + "}", "unreadable"),
        ("{" * 5000 + "}" * 5000, "unreadable"),
        ("{'NORM': 100.0, 'NORM': 0.0}", "a statement occurs twice"),
        ("{'NORM': __import__('os').getpid()}", "unreadable"),
    ],
)
def test_codes_are_parsed_not_run(published, tmp_path, capsys, codes, message):
    folder = tmp_path / "source"
    shutil.copytree(published, folder)
    rows = table(folder)
    rows[4]["scp_codes"] = codes
    rewrite(folder, rows)
    status = prepare.main(["ptb_xl", "--source", str(folder), "--data_dir", str(tmp_path / "d")])
    error = capsys.readouterr().err
    assert status == 1 and f"record {rows[4]['ecg_id']}: " in error and message in error


@pytest.mark.parametrize("value", ["1,0", "0.5", "nan", "2"])
def test_flags_of_statements_are_0_or_1(published, tmp_path, value):
    text = (published / "scp_statements.csv").read_text(encoding="utf-8")
    short = tmp_path / "scp_statements.csv"
    short.write_text(text.replace("1.0", f'"{value}"', 1), encoding="utf-8")
    with pytest.raises(SourceError, match=f"line 2: diagnostic '{value}' is not 0 or 1"):
        load_statements(short)


def test_incomplete_statements_are_refused(published, tmp_path):
    lines = (published / "scp_statements.csv").read_text().splitlines(keepends=True)
    short = tmp_path / "scp_statements.csv"
    short.write_text("".join(line for line in lines if not line.startswith("WPW,")))
    with pytest.raises(SourceError, match="22 classes of task 'sub', published are 23"):
        load_statements(short)
    short.write_text("".join(lines).replace("diagnostic_class", "class"))
    with pytest.raises(SourceError, match="lacks column 'diagnostic_class'"):
        load_statements(short)


def at_100_hz(tmp_path: Path, *options: str) -> tuple[dict, dict[str, np.ndarray]]:
    """What preparing `tmp_path / "source"` makes at 100 Hz: metadata, and signals by id."""
    data_dir = tmp_path / "_".join(("data", *options))
    arguments = ["ptb_xl", "--source", str(tmp_path / "source"), "--rate", "100", *options]
    assert prepare.main([*arguments, "--data_dir", str(data_dir)]) == 0
    builder = tfds.builder_from_directory(records.folder(data_dir, "ptb_xl", 100))
    split = records.load(data_dir, "ptb_xl", 100, "train")
    assert split.signals == split.take([0]).signals == builder.info.metadata["signals"]
    return builder.info.metadata, dict(zip(split.record_id, split.ecg, strict=True))


def test_published_100_hz_are_taken_where_there_are_no_others(tmp_path):
    source = tmp_path / "source"
    write_ptb_xl(source, records=12, rates=(100,))
    metadata, signals = at_100_hz(tmp_path)
    assert (metadata["signals"], metadata["source_rate"]) == ("published", 100)
    rows = {row["ecg_id"]: row for row in table(source)}
    for ecg_id, ecg in signals.items():
        record = wfdb.rdrecord(str(source / rows[ecg_id]["filename_lr"]))
        assert record.fs == 100
        np.testing.assert_array_equal(ecg, np.rint(record.p_signal * 1000))


def test_signals_are_chosen_where_both_are_there(tmp_path):
    write_ptb_xl(tmp_path / "source", records=12, rates=(100, 500))
    resampled, ours = at_100_hz(tmp_path)
    published, theirs = at_100_hz(tmp_path, "--signals", "published")
    assert (resampled["signals"], resampled["source_rate"]) == ("resampled", 500)
    assert published["signals"] == "published"
    assert not all(np.array_equal(ours[record], theirs[record]) for record in theirs)
    again, same = at_100_hz(tmp_path, "--signals", "resampled")
    assert again["signals"] == "resampled"
    assert all(np.array_equal(ours[record], same[record]) for record in same)


@pytest.mark.parametrize(
    ("rates", "options", "message"),
    [
        ((100,), ["--rate", "500"], "holds no records500/, which --rate 500 reads"),
        ((100,), ["--rate", "100", "--signals", "resampled"], "which --signals resampled reads"),
        ((500,), ["--rate", "100", "--signals", "published"], "which --signals published reads"),
    ],
)
def test_folders_without_the_signals_are_refused(tmp_path, capsys, rates, options, message):
    source = tmp_path / "source"
    write_ptb_xl(source, records=6, rates=rates)
    arguments = ["ptb_xl", "--source", str(source), "--data_dir", str(tmp_path / "data")]
    assert prepare.main([*arguments, *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("rate", "signals", "folder"),
    [
        (500, None, "records500"),
        (100, None, "records500"),
        (100, "resampled", "records500"),
        (100, "published", "records100"),
    ],
)
def test_one_of_the_two_rates_is_downloaded(tmp_path, monkeypatch, serve, rate, signals, folder):
    server = tmp_path / "server"
    write_ptb_xl(server, records=4, rates=(100, 500))
    here = dataclasses.replace(Builder.PUBLISHED, files=serve(server))
    monkeypatch.setattr(Builder, "PUBLISHED", here)
    options = ["--signals", signals] if signals else []
    arguments = ["ptb_xl", "--rate", str(rate), "--data_dir", str(tmp_path / "data"), *options]
    assert prepare.main(arguments) == 0
    downloads = tmp_path / "data" / "downloads" / "ptb_xl"
    names = {path.name for path in downloads.iterdir()}
    assert names == {"ptbxl_database.csv", "scp_statements.csv", "SHA256SUMS.txt", folder}
    assert len(list(downloads.rglob("*.dat"))) == 4


def test_data_of_another_version_are_refused(published, tmp_path):
    source = str(published)
    arguments = ["--source", source, "--rate", "100", "--data_dir", str(tmp_path)]
    assert prepare.main(["ptb_xl", *arguments]) == 0
    prepared = records.folder(tmp_path, "ptb_xl", 100)
    assert prepared.name == str(VERSION) and VERSION.major == records.MAJOR
    for other in ("1.0.0", "10.0.0"):
        prepared = prepared.rename(prepared.with_name(other))
        with pytest.raises(UserError, match=rf"of version {other}, needed is 2: .* ptb_xl --rate"):
            records.folder(tmp_path, "ptb_xl", 100)
    assert prepare.main(["ptb_xl", *arguments]) == 0
    assert records.folder(tmp_path, "ptb_xl", 100).name == str(VERSION)


@pytest.mark.real_data
def test_real_database_at_its_published_100_hz(real_data, tmp_path):
    """All of it; the label sets' sizes on fold 10 are those of the published benchmark."""
    source = real_data / "ptb-xl-100hz"
    if not source.is_dir():
        pytest.skip("no ptb-xl-100hz/ in the folder with the real recordings")
    data_dir = str(tmp_path / "data")
    arguments = ["ptb_xl", "--source", str(source), "--rate", "100", "--data_dir", data_dir]
    assert prepare.main(arguments) == 0
    sizes = {"train": 17_418, "validation": 2_183, "test": 2_198}
    for split, size in sizes.items():
        assert len(records.load(data_dir, "ptb_xl", 100, split)) == size
    test = records.load(data_dir, "ptb_xl", 100, "test")
    assert test.signals == "published"
    labelled = {task: int(y.any(axis=1).sum()) for task, y in test.labels.items()}
    expected = {"super": 2_158, "sub": 2_158, "form": 880, "rhythm": 2_098}
    assert {task: labelled[task] for task in expected} == expected
    rows = {row["ecg_id"]: row for row in table(source)}
    for record_id, ecg in list(zip(test.record_id, test.ecg, strict=True))[::100]:
        record = wfdb.rdrecord(str(source / rows[record_id]["filename_lr"]))
        np.testing.assert_array_equal(ecg, np.rint(record.p_signal * 1000))


@pytest.mark.real_data
def test_real_subset_at_100_hz(real_data, build):
    source = real_data / "ptb-xl"
    builder = build("ptb_xl", source, "--rate", "100")
    sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
    assert sizes == {"train": 2322, "validation": 330, "test": 149}
    assert builder.info.metadata["bad_records"] == {}
    rows = {row["ecg_id"]: row for row in table(source)}
    for split in sizes:
        data = builder.as_data_source(split)
        for example in (data[i] for i in range(0, len(data), 25)):
            _check_against_wfdb(source, rows[example["record_id"].decode()], example)


def _check_against_wfdb(source: Path, row: dict[str, str], example: dict) -> None:
    """At 100 Hz: what a Fourier resampling of wfdb's own reading gives, away from the ends."""
    signal = wfdb.rdrecord(str(source / row["filename_hr"])).p_signal * 1000
    spectrum = np.fft.rfft(signal, axis=0)
    spectrum[450:] = 0  # keeps 0-45 Hz, in which the two filters agree
    expected = np.fft.irfft(spectrum, 5000, axis=0)[::5]
    ours = np.fft.rfft(example["ecg"].astype(float), axis=0)
    ours[450:] = 0
    got = np.fft.irfft(ours, 1000, axis=0)
    error = np.abs(got - expected)[100:-100]
    assert np.median(error) < 2 and error.mean() < 0.02 * np.abs(expected).mean() + 2
    assert example["report"].decode() == row["report"]


@pytest.mark.real_data
def test_real_records_at_500_hz_equal_wfdbs(real_data, build, examples, tmp_path):
    rows = table(real_data / "ptb-xl")[::100]
    folder = tmp_path / "part"
    folder.mkdir()
    shutil.copy(real_data / "ptb-xl" / "scp_statements.csv", folder)
    for row in rows:
        (folder / row["filename_hr"]).parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".hea", ".dat"):
            name = row["filename_hr"] + suffix
            (folder / name).symlink_to(real_data / "ptb-xl" / name)
    rewrite(folder, rows)
    found = examples(build("ptb_xl", folder))
    assert len(found) == len(rows)
    for row in rows:
        record = wfdb.rdrecord(str(folder / row["filename_hr"]))
        order = [[n.casefold() for n in record.sig_name].index(lead.casefold()) for lead in LEADS]
        expected = np.rint(record.p_signal[:, order] * 1000)
        np.testing.assert_array_equal(found[row["ecg_id"]][1]["ecg"], expected)


def test_features_do_not_depend_on_the_source():
    """`tfds build` reads them before it has seen any file."""
    for config in Builder.BUILDER_CONFIGS:
        info = Builder(config=config.name).info
        assert info.features["ecg"].shape == (10 * config.rate, 12)
        assert isinstance(info.features, tfds.features.FeaturesDict)
        assert info.citation and info.description
