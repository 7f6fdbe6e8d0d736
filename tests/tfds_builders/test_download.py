"""Downloads from a project's address, here a folder's own."""

import hashlib
from pathlib import Path

import pytest

from tfds_builders.download import Published, fetch
from tfds_builders.errors import SourceError
from tfds_builders.mit_bih.mit_bih_dataset_builder import Builder
from tfds_builders.simulated.layouts import write_mit_bih


@pytest.fixture
def server(tmp_path) -> Path:
    folder = tmp_path / "server"
    write_mit_bih(folder, seconds=12)
    return folder


def published(server: Path) -> Published:
    return Published("title", "homepage", server.as_uri() + "/", Builder.PUBLISHED.wanted)


def test_wanted_files_are_fetched_and_kept(server, tmp_path):
    folder = fetch(published(server), tmp_path / "downloads")
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in server.iterdir()} - {"RECORDS"}
    times = {path: path.stat().st_mtime_ns for path in folder.glob("1*")}
    (folder / "100.dat").write_bytes(b"half")
    fetch(published(server), folder)
    assert (folder / "100.dat").read_bytes() == (server / "100.dat").read_bytes()
    changed = {path.name for path, then in times.items() if path.stat().st_mtime_ns != then}
    assert changed == {"100.dat"}


def test_a_file_that_disagrees_with_its_digest_is_not_kept(server, tmp_path):
    (server / "101.atr").write_bytes(b"something else")
    with pytest.raises(SourceError, match=r"101\.atr: does not agree with SHA256SUMS\.txt"):
        fetch(published(server), tmp_path / "downloads")
    assert not list((tmp_path / "downloads").glob("101.atr*"))
    assert not (tmp_path / "downloads" / "SHA256SUMS.txt").exists()


def test_names_that_leave_the_folder_are_refused(server, tmp_path):
    digest = hashlib.sha256(b"").hexdigest()
    (server / "SHA256SUMS.txt").write_text(f"{digest} ../100.hea\n")
    everything = Published("title", "homepage", server.as_uri() + "/", lambda name: True)
    with pytest.raises(SourceError, match="names a file outside its folder"):
        fetch(everything, tmp_path / "downloads")
    assert not (tmp_path / "100.hea").exists()


def test_no_such_address(tmp_path):
    with pytest.raises(SourceError, match=r"SHA256SUMS\.txt: .*--source"):
        fetch(published(tmp_path / "nowhere"), tmp_path / "downloads")
    assert not (tmp_path / "downloads").exists()
