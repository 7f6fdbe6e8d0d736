"""Shards that workers write: the same bytes as one process writes, and no record lost unseen.

Most of it needs no Beam: `engine` has the shards written one by one, the last first, by a builder
that is made anew for each.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tfds_builders import on_beam, prepare, running, shards
from tfds_builders.errors import SourceError
from tfds_builders.mimic_iv_ecg.mimic_iv_ecg_dataset_builder import Builder as Mimic
from tfds_builders.mimic_iv_ecg.read import fold_of, split_of
from tfds_builders.simulated.layouts import (
    write_cinc2021,
    write_cpsc2018,
    write_mit_bih,
    write_ptb_xl,
)
from tfds_builders.simulated.ludb_layout import write_ludb
from tfds_builders.simulated.mimic_iv_ecg import write_mimic_iv_ecg

LAYOUTS = {
    "ptb_xl": lambda folder: write_ptb_xl(folder, records=12),
    "cpsc2018": lambda folder: write_cpsc2018(folder, layout="challenge", records=4, max_seconds=8),
    "mit_bih": lambda folder: write_mit_bih(folder, seconds=12),
    "cinc2021": write_cinc2021,
    "ludb": write_ludb,
    "mimic_iv_ecg": lambda folder: write_mimic_iv_ecg(
        folder, records=14, split=lambda subject: split_of(fold_of(subject))
    ),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            LAYOUTS[name](made[name])
        return made[name]

    return get


@pytest.fixture
def engine(monkeypatch) -> list[shards.Shard]:
    """The shards that were written, none of them by Beam."""
    done: list[shards.Shard] = []

    def run(recipe, todo, words):
        assert words == ["--runner=Other"]
        for shard in reversed(todo):
            shards.planned.cache_clear()
            shards.write_shard(shard, recipe)
            done.append(shard)

    monkeypatch.setattr(on_beam, "run", run)
    monkeypatch.setattr(on_beam, "options", str.split)
    monkeypatch.setattr(Mimic, "RECORDS_PER_SHARD", 3)
    return done


def run(name: str, source: Path, data_dir: Path, *options: str) -> int:
    arguments = [name, "--source", str(source), "--data_dir", str(data_dir), "--rate", "100"]
    return prepare.main([*arguments, *options])


def contents(data_dir: Path) -> tuple[dict[str, bytes], dict]:
    files = {p.name: p.read_bytes() for p in data_dir.rglob("*array_record*")}
    hidden = [p.name for p in data_dir.rglob(".*") if p.name != ".config"]
    assert not hidden
    return files, json.loads(next(data_dir.rglob("metadata.json")).read_text())


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_same_bytes_as_from_one_process(name, published, engine, tmp_path):
    source = published(name)
    assert run(name, source, tmp_path / "one") == 0
    assert run(name, source, tmp_path / "many", "--beam", "--runner=Other") == 0
    one, many = (contents(tmp_path / folder) for folder in ("one", "many"))
    assert one == many and len(one[0]) == len(engine)
    assert all(len(digest) == 64 for digest in one[1]["records_sha256"].values())
    assert run(name, source, tmp_path / "many") == 0  # already prepared


@pytest.fixture
def source(published, tmp_path) -> Path:
    """A copy of MIMIC-IV-ECG's layout without digests, so that it may be changed."""
    shutil.copytree(published("mimic_iv_ecg"), tmp_path / "source")
    (tmp_path / "source" / "SHA256SUMS.txt").unlink()
    return tmp_path / "source"


def spoil(source: Path) -> None:
    """One record cut short, one without a header; one of the test split is one of the training."""
    headers = sorted(source.rglob("*.hea"))
    by_split = {"train": [], "validation": [], "test": []}
    for header in headers:
        by_split[split_of(fold_of(int(header.parents[1].name[1:])))].append(header)
    train, test = by_split["train"], by_split["test"][0]
    train[0].with_suffix(".dat").write_bytes(b"")
    train[1].unlink()
    own = test.read_text().splitlines()
    test.write_text(train[2].read_text().replace(train[2].stem, test.stem))
    lines = test.read_text().splitlines()
    test.write_text("\n".join([*lines[:-1], own[-1], ""]))
    test.with_suffix(".dat").write_bytes(train[2].with_suffix(".dat").read_bytes())


def test_bad_records_end_in_the_same_lines(source, engine, tmp_path, capsys):
    spoil(source)
    said = []
    for options in ((), ("--beam", "--runner=Other")):
        assert run("mimic_iv_ecg", source, tmp_path / "data", *options) == 1
        said.append(sorted(capsys.readouterr().err.splitlines()))
        assert not (tmp_path / "data").exists()
    assert said[0] == said[1] and any("a leak" in line for line in said[0])
    assert any("3 of 14 records can't be used" in line for line in said[0])


def test_without_bad_records_it_is_the_same_dataset(source, engine, tmp_path):
    spoil(source)
    assert run("mimic_iv_ecg", source, tmp_path / "one", "--skip_bad") == 0
    options = ("--skip_bad", "--beam", "--runner=Other")
    assert run("mimic_iv_ecg", source, tmp_path / "many", *options) == 0
    one, many = (contents(tmp_path / folder) for folder in ("one", "many"))
    assert one == many and len(one[1]["bad_records"]) == 3


def refused(source: Path, data_dir: Path, capsys, *options: str) -> str:
    assert run("mimic_iv_ecg", source, data_dir, *options) == 2
    assert not data_dir.exists()
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_shard_that_an_engine_has_lost(source, engine, tmp_path, capsys, monkeypatch):
    whole = on_beam.run
    monkeypatch.setattr(on_beam, "run", lambda recipe, todo, words: whole(recipe, todo[1:], words))
    error = refused(source, tmp_path / "data", capsys, "--beam", "--runner=Other")
    assert "was never written: the engine has lost it" in error


@pytest.mark.parametrize("beam", [True, False])
def test_a_record_that_is_lost_between_reading_and_writing(
    source, engine, tmp_path, capsys, monkeypatch, beam
):
    if beam:
        whole = shards._examples
        monkeypatch.setattr(shards, "_examples", lambda b, jobs, *rest: whole(b, jobs[1:], *rest))
    else:
        whole = running.read_all
        monkeypatch.setattr(running, "read_all", lambda jobs, *rest: whole(jobs[1:], *rest))
    options = ("--beam", "--runner=Other") if beam else ()
    error = refused(source, tmp_path / "data", capsys, *options)
    assert "records were lost on the way, so this is no dataset" in error


def test_records_that_a_writer_has_lost(source, engine, tmp_path, capsys, monkeypatch):
    """The shard holds one less than its worker says."""
    write = shards.writer_lib.ShardWriter.write
    monkeypatch.setattr(
        shards.writer_lib.ShardWriter,
        "write",
        lambda self, examples, path: write(self, list(examples)[1:], path),
    )
    error = refused(source, tmp_path / "data", capsys, "--beam", "--runner=Other")
    assert "records were written, and its shards hold" in error


def test_other_records_than_the_listed_ones(source, engine, tmp_path, capsys, monkeypatch):
    """One read twice, and another not at all."""
    whole = shards._examples
    monkeypatch.setattr(
        shards, "_examples", lambda b, jobs, *rest: whole(b, [jobs[0], *jobs[:-1]], *rest)
    )
    assert run("mimic_iv_ecg", source, tmp_path / "data", "--beam", "--runner=Other") != 0
    assert not (tmp_path / "data").exists()


def test_a_shard_may_be_written_twice(source, engine, tmp_path, monkeypatch):
    once = shards.write_shard
    monkeypatch.setattr(shards, "write_shard", lambda *args: (once(*args), once(*args)))
    assert run("mimic_iv_ecg", source, tmp_path / "data", "--beam", "--runner=Other") == 0
    assert contents(tmp_path / "data")[1]["bad_records"] == {}


def test_what_a_worker_says_is_read_back(tmp_path):
    path = tmp_path / "x"
    shard = shards.Shard("train", 0, 1, str(path))
    with pytest.raises(SourceError, match="was never written"):
        shards.collect(shard)
    account = shards.Account()
    account.done.add(b"1")
    written = shards.Written(
        account,
        {"2": "why"},
        {"1": ["V1"]},
        shards.Counter({("beats", "N"): 3}),
        {"1": [shards.Mark("1", 2**63, 5)]},
    )
    path.touch()
    shards.beside(shard).write_text(written.dumps())
    assert shards.collect(shard) == written
    path.write_bytes(b"more")
    with pytest.raises(SourceError, match="has 4 bytes, its writer says 0"):
        shards.collect(shard)


def test_without_beam_it_is_asked_for(source, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    error = refused(source, tmp_path / "data", capsys, "--beam", "--runner=DirectRunner")
    assert "--beam needs Apache Beam: pip install 'ecg_jax[beam]'" in error


def test_nothing_imports_beam_unasked():
    code = "import sys, tfds_builders.prepare; assert 'apache_beam' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_simulated_records_are_made_by_one_process(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        prepare.main(["simulated", "--data_dir", str(tmp_path / "data"), "--beam", "--a b"])
    assert exit_.value.code == 2
    assert "--beam does not apply" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 2])
def test_beam_itself(published, tmp_path, monkeypatch, workers):
    pytest.importorskip("apache_beam")
    monkeypatch.setattr(Mimic, "RECORDS_PER_SHARD", 3)
    source = published("mimic_iv_ecg")
    options = f"--direct_running_mode in_memory --direct_num_workers {workers}"
    assert run("mimic_iv_ecg", source, tmp_path / "one") == 0
    assert run("mimic_iv_ecg", source, tmp_path / "beam", "--beam", options) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "beam")


@pytest.mark.parametrize("mode", on_beam.REFUSED)
def test_modes_that_lose_records_are_refused_by_name(source, tmp_path, capsys, mode):
    pytest.importorskip("apache_beam")
    options = f"--runner=DirectRunner --direct_running_mode={mode} --direct_num_workers=2"
    error = refused(source, tmp_path / "data", capsys, "--beam", options)
    assert f"--direct_running_mode {mode}" in error and "use in_memory" in error


def test_a_worker_that_fails_on_beam(source, tmp_path, capsys, monkeypatch):
    pytest.importorskip("apache_beam")

    def broken(self, source):
        raise SourceError("nothing here")

    monkeypatch.setattr(Mimic, "planned", broken)
    shards.planned.cache_clear()
    error = refused(source, tmp_path / "data", capsys, "--beam", "--runner=DirectRunner")
    assert "mimic_iv_ecg: nothing here" in error
