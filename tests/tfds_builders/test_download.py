"""Downloads from a project's address, here that of a folder."""

import dataclasses
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


@pytest.fixture
def published(server, serve) -> Published:
    return Published("title", "homepage", serve(server), Builder.PUBLISHED.wanted)


def test_wanted_files_are_fetched_and_kept(server, published, tmp_path):
    folder = fetch(published, tmp_path / "downloads")
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in server.iterdir()} - {"RECORDS"}
    times = {path: path.stat().st_mtime_ns for path in folder.glob("1*")}
    (folder / "100.dat").write_bytes(b"half")
    fetch(published, folder)
    assert (folder / "100.dat").read_bytes() == (server / "100.dat").read_bytes()
    changed = {path.name for path, then in times.items() if path.stat().st_mtime_ns != then}
    assert changed == {"100.dat"}


def test_a_file_that_disagrees_with_its_digest_is_not_kept(server, published, tmp_path):
    (server / "101.atr").write_bytes(b"something else")
    with pytest.raises(SourceError, match=r"101\.atr: does not agree with SHA256SUMS\.txt"):
        fetch(published, tmp_path / "downloads")
    assert not list((tmp_path / "downloads").glob("101.atr*"))
    assert not (tmp_path / "downloads" / "SHA256SUMS.txt").exists()


def test_names_that_leave_the_folder_are_refused(server, published, tmp_path):
    digest = hashlib.sha256(b"").hexdigest()
    (server / "SHA256SUMS.txt").write_text(f"{digest} ../100.hea\n")
    everything = dataclasses.replace(published, wanted=lambda name: True)
    with pytest.raises(SourceError, match="names a file outside its folder"):
        fetch(everything, tmp_path / "downloads")
    assert not (tmp_path / "100.hea").exists()


def test_no_such_address(published, tmp_path):
    nowhere = dataclasses.replace(published, files=published.files + "nowhere/")
    with pytest.raises(SourceError, match=r"SHA256SUMS\.txt: .*--source"):
        fetch(nowhere, tmp_path / "downloads")
    assert not (tmp_path / "downloads").exists()


def test_connections_are_used_again(published, tmp_path, connections):
    fetch(published, tmp_path / "downloads")
    assert 1 <= len(connections) <= 9 < len(list((tmp_path / "downloads").iterdir()))


def test_the_digests_own_digest(server, published, tmp_path):
    sums = server / "SHA256SUMS.txt"
    known = hashlib.sha256(sums.read_bytes()).hexdigest()
    fetch(dataclasses.replace(published, sums_sha256=known), tmp_path / "downloads")
    sums.write_bytes(sums.read_bytes() + b"\n")
    with pytest.raises(SourceError, match=r"SHA256SUMS\.txt: SHA-256 .*, published is"):
        fetch(dataclasses.replace(published, sums_sha256=known), tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(SourceError, match=r"the download in .* began with .*: remove that folder"):
        fetch(published, tmp_path / "downloads")


def test_a_download_that_was_broken_off_goes_on_with_its_digests(server, published, tmp_path):
    whole = (server / "101.atr").read_bytes()
    (server / "101.atr").write_bytes(b"not all")
    with pytest.raises(SourceError):
        fetch(published, tmp_path / "downloads")
    digest = hashlib.sha256(b"not all").hexdigest()
    sums = (server / "SHA256SUMS.txt").read_text()
    changed = [f"{digest} 101.atr" if "101.atr" in line else line for line in sums.splitlines()]
    (server / "SHA256SUMS.txt").write_text("\n".join(changed))
    with pytest.raises(SourceError, match="began with"):
        fetch(published, tmp_path / "downloads")
    (server / "SHA256SUMS.txt").write_text(sums)
    (server / "101.atr").write_bytes(whole)
    assert (fetch(published, tmp_path / "downloads") / "101.atr").read_bytes() == whole
