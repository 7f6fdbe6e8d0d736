"""Prepared data that are not as they were made are found when they are opened."""

import json
import os
import shutil
from pathlib import Path

import pytest

from ecg_jax.data import records
from ecg_jax.errors import UserError
from tfds_builders import prepare


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A data folder of 60 simulated records in three splits of one shard each."""
    folder = tmp_path_factory.mktemp("made")
    options = ["simulated", "--rate", "100", "--records", "60", "--data_dir", str(folder)]
    assert prepare.main(options) == 0
    return folder


@pytest.fixture
def prepared(made, tmp_path) -> Path:
    """The files of a copy of it."""
    return records.folder(shutil.copytree(made, tmp_path / "data"), "simulated", 100)


def load(prepared: Path, split="train", **options) -> records.Records:
    return records.load(prepared.parents[2], "simulated", 100, split, **options)


def shard(prepared: Path, split: str) -> Path:
    (path,) = prepared.glob(f"simulated-{split}.array_record*")
    return path


def refused(prepared: Path, what: str, split="train") -> None:
    for options in ({}, {"stored": True}):
        with pytest.raises(UserError, match=what) as error:
            load(prepared, split, **options)
        assert "with --overwrite" in str(error.value) and "\n" not in str(error.value)


def test_as_it_was_made(prepared):
    assert len(load(prepared)) == len(load(prepared, stored=True)) > 40


def test_shards_of_two_splits_exchanged(prepared):
    one, other = shard(prepared, "validation"), shard(prepared, "test")
    one.rename(prepared / "away")
    other.rename(one)
    (prepared / "away").rename(other)
    for split in ("validation", "test"):
        refused(prepared, f"shard of split '{split}' is missing or damaged, or of another", split)
    load(prepared)


def test_a_shard_of_another_build(prepared, tmp_path):
    options = ["simulated", "--rate", "100", "--records", "61", "--data_dir", str(tmp_path / "b")]
    assert prepare.main(options) == 0
    other = records.folder(tmp_path / "b", "simulated", 100)
    shutil.copy(shard(other, "train"), shard(prepared, "train"))
    refused(prepared, "or of another split or build: simulated-train")


@pytest.mark.parametrize("where", [0, 0.3, 0.9999])
def test_one_flipped_bit(prepared, where):
    path = shard(prepared, "train")
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 4
    time = path.stat().st_mtime_ns
    path.write_bytes(data)
    os.utime(path, ns=(time + 10**9, time + 10**9))
    refused(prepared, "shard of split 'train' is missing or damaged")


@pytest.mark.parametrize("name", ["metadata.json", "features.json", "dataset_info.json"])
@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[" * 100_000, "\x00\x01", "{"])
def test_files_of_another_form(prepared, name, text):
    (prepared / name).write_text(text)
    with pytest.raises(UserError) as error:
        load(prepared)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def test_metadata_that_were_changed(prepared):
    path = prepared / "metadata.json"
    said = json.loads(path.read_text())
    said["classes"]["super"] = said["classes"]["super"][::-1]
    path.write_text(json.dumps(said))
    refused(prepared, "metadata.json has been changed")


def test_records_that_are_left_out_of_the_count(prepared):
    path = prepared / "dataset_info.json"
    said = json.loads(path.read_text())
    for split in said["splits"]:
        split["shardLengths"] = [str(int(n) - 1) for n in split["shardLengths"]]
    path.write_text(json.dumps(said))
    refused(prepared, "says otherwise how many records train has")


@pytest.mark.parametrize("field", ["name", "fileFormat", "splits"])
def test_a_description_that_lacks_something(prepared, field):
    path = prepared / "dataset_info.json"
    said = json.loads(path.read_text())
    said[field] = [] if field == "splits" else ""
    path.write_text(json.dumps(said))
    with pytest.raises(UserError) as error:
        load(prepared)
    assert "\n" not in str(error.value) and str(prepared) in str(error.value)


def test_what_an_earlier_version_prepared_is_read(prepared):
    path = prepared / "metadata.json"
    said = json.loads(path.read_text())
    del said["sealed"]
    path.write_text(json.dumps(said))
    load(prepared)
