"""The command: exit statuses, one line per error, nothing left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfds_builders import jobs, prepare
from tfds_builders.build import VERSION
from tfds_builders.errors import RecordError, SourceError
from tfds_builders.progress import progress
from tfds_builders.simulated.layouts import write_mit_bih, write_ptb_xl

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ptb-xl")
    write_ptb_xl(folder, records=24)
    return folder


@pytest.fixture
def source(published, tmp_path) -> Path:
    folder = tmp_path / "source"
    shutil.copytree(published, folder)
    return folder


def run(*arguments) -> int:
    return prepare.main([str(argument) for argument in arguments])


def damage(source: Path) -> None:
    """Record 3 is truncated, 5 has a wrong checksum and digest, 7 an unknown lead, 8 no file."""
    records = source / "records500" / "00000"
    (source / "SHA256SUMS.txt").unlink()
    short = records / "00003_hr.dat"
    short.write_bytes(short.read_bytes()[:-6])
    wrong = bytearray((records / "00005_hr.dat").read_bytes())
    wrong[100] ^= 4
    (records / "00005_hr.dat").write_bytes(wrong)
    header = records / "00007_hr.hea"
    header.write_text(header.read_text().replace(" V4\n", " C4\n"))
    (records / "00008_hr.hea").unlink()


BAD = {
    "3": "records500/00000/00003_hr.dat: truncated, 119994 of 120000 bytes",
    "5": "records500/00000/00005_hr.hea: checksum of 00005_hr.dat, lead",
    "7": "records500/00000/00007_hr.hea: unknown lead name 'C4'",
    "8": "records500/00000/00008_hr.hea: no such file",
}


def test_bad_records_are_all_listed_and_nothing_is_built(source, tmp_path, capsys):
    damage(source)
    data_dir = tmp_path / "data"
    assert run("ptb_xl", "--source", source, "--data_dir", data_dir) == 1
    error = capsys.readouterr().err
    assert "ptb_xl: 4 of 24 records can't be used\n" in error
    for record, reason in BAD.items():
        assert f"\n  record {record}: {reason}" in error
    assert not data_dir.exists()


def test_skip_bad_goes_on_without_them_and_says_so(source, tmp_path, examples, capsys):
    damage(source)
    data_dir = tmp_path / "data"
    arguments = ("ptb_xl", "--source", source, "--data_dir", data_dir, "--rate", 100)
    assert run(*arguments, "--skip_bad") == 0
    folder = data_dir / "ptb_xl" / "rate100" / str(VERSION)
    builder = tfds.builder_from_directory(folder)
    assert set(examples(builder)) == {str(i) for i in range(1, 25)} - set(BAD)
    listed = json.loads((folder / "bad_records.json").read_text())
    assert listed == builder.info.metadata["bad_records"] and set(listed) == set(BAD)
    assert all(listed[record].startswith(reason) for record, reason in BAD.items())
    assert "without 4 bad records" in capsys.readouterr().out


def test_skipping_every_record_builds_nothing(source, tmp_path, capsys):
    shutil.rmtree(source / "records500")
    (source / "SHA256SUMS.txt").unlink()
    data_dir = tmp_path / "data"
    assert run("ptb_xl", "--source", source, "--data_dir", data_dir, "--skip_bad") == 1
    assert "24 of 24 records" in capsys.readouterr().err and not data_dir.exists()


def test_shards_and_splits_that_end_up_empty(tmp_path):
    write_mit_bih(tmp_path / "source", seconds=12)
    (tmp_path / "source" / "SHA256SUMS.txt").unlink()
    for record in ("102", "100", "200", "202"):  # the only paced one; a whole shard of `test`
        (tmp_path / "source" / f"{record}.atr").unlink()
    arguments = ("--source", tmp_path / "source", "--data_dir", tmp_path / "data", "--skip_bad")
    assert run("mit_bih", *arguments) == 0
    folder = tmp_path / "data" / "mit_bih" / "rate500" / str(VERSION)
    builder = tfds.builder_from_directory(folder)
    assert set(builder.info.splits) == {"train", "validation", "test", "ds1_subject_of_202"}
    assert not list(folder.glob("*paced*"))
    records = [example["record_id"][:3] for example in builder.as_data_source("test")]
    assert records == [b"212", b"212", b"232", b"232"]


def test_digests_are_verified_of_tables_and_records(source, tmp_path, capsys):
    data_dir = tmp_path / "data"
    with (source / "scp_statements.csv").open("a") as file:
        file.write("\n")
    assert run("ptb_xl", "--source", source, "--data_dir", data_dir) == 2
    assert "scp_statements.csv: SHA-256" in capsys.readouterr().err
    table = source / "SHA256SUMS.txt"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(line for line in lines if "scp_statements" not in line))
    header = source / "records500" / "00000" / "00002_hr.hea"
    header.write_text(header.read_text() + "# edited\n")
    assert run("ptb_xl", "--source", source, "--data_dir", data_dir) == 1
    error = capsys.readouterr().err
    assert "1 of 24 records" in error
    assert "record 2: records500/00000/00002_hr.hea: SHA-256" in error


def test_prepared_data_are_left_alone(published, tmp_path, capsys):
    arguments = ("ptb_xl", "--source", published, "--data_dir", tmp_path / "data", "--rate", 100)
    assert run(*arguments) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}
    capsys.readouterr()
    assert run(*arguments) == 0
    assert "ptb_xl is already prepared in" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*")}


def test_failure_leaves_other_prepared_data_alone(source, tmp_path):
    data_dir = tmp_path / "data"
    assert run("ptb_xl", "--source", source, "--data_dir", data_dir, "--rate", 100) == 0
    before = sorted(data_dir.rglob("*"))
    damage(source)
    assert run("ptb_xl", "--source", source, "--data_dir", data_dir, "--rate", 500) == 1
    assert sorted(data_dir.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "invalid choice: 'nope'"),
        (["ptb_xl", "--rate", "250"], "invalid choice: 250"),
        (["ptb_xl", "--signals", "published"], "--signals applies to ptb_xl with --rate 100 only"),
        (["mit_bih", "--rate", "100", "--signals", "resampled"], "--signals applies to ptb_xl"),
        (["ptb_xl", "--records", "5"], "--records applies to simulated only"),
        (["simulated", "--skip_bad"], "simulated has no source"),
        (["simulated", "--limb_leads", "as_given"], "simulated has no source"),
        (["simulated", "--records", "0"], "--records 0: at least 1"),
        (["ptb_xl", "--source", "/does/not/exist"], "/does/not/exist: no such folder"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as exit_:
        run(*arguments, "--data_dir", tmp_path / "data")
    error = capsys.readouterr().err
    assert exit_.value.code == 2 and message in error and error.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_folder_without_ptbxl_database(tmp_path, capsys):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "readme").touch()
    assert run("ptb_xl", "--source", tmp_path / "source", "--data_dir", tmp_path / "data") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "ptbxl_database.csv: no such file" in error
    assert not (tmp_path / "data").exists()


def test_threads_give_the_same_as_one(published, tmp_path, monkeypatch, examples):
    found = []
    for processors in (1, 3):
        monkeypatch.setattr(jobs, "_MIN_PARALLEL", 1)
        monkeypatch.setattr(jobs, "usable_processors", lambda processors=processors: processors)
        data_dir = tmp_path / str(processors)
        options = ("--data_dir", data_dir, "--rate", 100)
        assert run("ptb_xl", "--source", published, *options) == 0
        folder = data_dir / "ptb_xl" / "rate100" / str(VERSION)
        found.append(list(examples(tfds.builder_from_directory(folder)).items()))
    for (one, (split, example)), (other, (same, twin)) in zip(*found, strict=True):
        assert (one, split) == (other, same)
        np.testing.assert_array_equal(example["ecg"], twin["ecg"])


_COMMAND = [sys.executable, "-m", "tfds_builders.prepare", "ptb_xl"]
_NEVER_ENDING = """
import sys, time
from tfds_builders import prepare
from tfds_builders.ptb_xl import read
read.read_wfdb = lambda *args, **kwargs: time.sleep(600)
sys.exit(prepare.main(sys.argv[1:]))
"""


def test_sigterm_leaves_nothing(published, tmp_path):
    data_dir = tmp_path / "data"
    arguments = ["ptb_xl", "--source", published, "--data_dir", data_dir]
    process = subprocess.Popen(
        [sys.executable, "-c", _NEVER_ENDING, *arguments],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not list(data_dir.glob("ptb_xl/rate500/*/*array_record*")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert not data_dir.exists()


def test_no_room_for_the_shards(published, tmp_path):
    data_dir = tmp_path / "data"
    limited = ["bash", "-c", 'ulimit -f 976; exec "$@"', "bash"]  # files of 1 MB
    process = subprocess.run(
        [*limited, *_COMMAND, "--source", published, "--data_dir", data_dir],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert "ptb_xl: write() failed: File too large" in process.stderr
    assert "Traceback" not in process.stderr and not data_dir.exists()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux")
def test_only_processors_that_may_be_used_are_counted():
    everywhere = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(everywhere)})
        assert jobs.usable_processors() == 1
        with jobs.readers(1000) as executor:
            assert executor is None
    finally:
        os.sched_setaffinity(0, everywhere)
    assert jobs.usable_processors() == len(everywhere)


def test_a_log_file_gets_a_line_now_and_then(capsys, monkeypatch):
    clock = iter(range(0, 1000, 10))  # ten seconds between two records
    monkeypatch.setattr("tfds_builders.progress.time.monotonic", lambda: next(clock))
    with progress(9, "ptb_xl/rate100") as bar:
        for _ in range(9):
            bar.update()
    assert capsys.readouterr().err.splitlines() == [
        f"ptb_xl/rate100: {count} of 9 records, 0/s" for count in (3, 6, 9)
    ]


def test_a_quick_build_says_nothing_on_the_way(published, tmp_path, capsys):
    options = ("--data_dir", tmp_path / "data", "--rate", 100)
    assert run("ptb_xl", "--source", published, *options) == 0
    assert capsys.readouterr().err == ""


def test_unexpected_errors_are_not_taken_for_bad_records():
    def fail(error: Exception):
        def read():
            raise error

        return jobs.read(jobs.Job("1", read))

    assert fail(RecordError("reason")) == "reason"
    assert "denied" in fail(PermissionError("denied"))
    for error in (KeyError("bug"), SourceError("folder")):
        with pytest.raises(type(error)):
            fail(error)
