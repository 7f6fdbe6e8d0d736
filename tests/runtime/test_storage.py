"""Paths of object stores, against a stand-in that has objects and nothing else."""

import importlib
import json
import subprocess
import sys
import threading
from pathlib import Path

import fsspec
import jax
import numpy as np
import object_store
import pytest

from ecg_jax.errors import UserError
from ecg_jax.runtime import cache, files, lock, parallel, storage
from ecg_jax.runtime.arrays import digests
from ecg_jax.runtime.checkpoint import Checkpoints


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    from etils.epath import backend

    registry = importlib.import_module("fsspec.registry")
    before = dict(registry._registry)
    (tmp_path / "store").mkdir()
    monkeypatch.setenv("OBJECT_STORE", str(tmp_path / "store"))
    object_store.register()
    storage._reach.cache_clear()
    backend.fsspec_backend._get_filesystem.cache_clear()
    yield tmp_path / "store"
    registry._registry.clear()
    registry._registry.update(before)
    storage._reach.cache_clear()
    backend.fsspec_backend._get_filesystem.cache_clear()


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_an_address_is_kept(scheme):
    path = storage.path(f"{scheme}://bucket/run")
    assert str(path / "a" / "b.json") == f"{scheme}://bucket/run/a/b.json"
    assert storage.remote(path)
    assert storage.path("runs/a") == Path("runs/a")
    assert not storage.remote(storage.path("/runs/a"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ftp://host/run", r"ftp:// is not supported: name a local folder, gs:// or s3://"),
        ("gs:/bucket/run", r"write it gs://BUCKET"),
        ("gs://", r"write it gs://BUCKET"),
    ],
)
def test_other_addresses_are_refused_in_one_line(text, message):
    with pytest.raises(UserError, match=message):
        storage.path(text)


def test_a_package_that_is_missing_is_named(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(UserError, match="needs the package s3fs: pip install s3fs"):
        storage.path("s3://bucket/run")


def test_a_store_that_cannot_be_reached_is_one_line(monkeypatch):
    def denied(self, path, **_):
        raise RuntimeError("403 forbidden")

    monkeypatch.setattr(object_store.Store, "info", denied)
    with pytest.raises(
        UserError, match=r"gs://other/.* cannot be read or written \(403 forbidden\)"
    ):
        storage.path("gs://other/run")


def test_files_are_written_whole_and_read():
    path = storage.path("gs://bucket/run/results.json")
    files.write_whole(path, b"[1]\n")
    assert json.loads(path.read_text()) == [1]
    arrays = storage.path("gs://bucket/run/a.npz")
    files.write_arrays(arrays, {"a": 1}, {"x": np.arange(3)})
    with files.open_arrays(arrays) as (header, found):
        assert header == {"a": 1}
        np.testing.assert_array_equal(found["x"], np.arange(3))
    assert {p.name for p in storage.files(path.parent)} == {"results.json", "a.npz"}
    assert not storage.files(storage.path("gs://bucket/none"))


def test_arrays_whose_checksum_is_another(tmp_path):
    """NumPy alone may read them without a word, where it stops before a part's end."""
    path = tmp_path / "a.npz"
    files.write_arrays(path, {"a": 1}, {"x": np.arange(300)})
    data = bytearray(path.read_bytes())
    checksum = data.rindex(b"PK\x01\x02") + 16  # in the directory, of the last part
    data[checksum] ^= 1
    path.write_bytes(data)
    with (
        pytest.raises(UserError, match=r"a\.npz is damaged \('x.npy' has another checksum"),
        files.open_arrays(path),
    ):
        pass


@pytest.fixture(scope="module")
def google(tmp_path_factory):
    """The folder of a store that orbax finds at gs://, too; it asks for the address once."""
    folder = tmp_path_factory.mktemp("google")
    with object_store.served(folder) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield folder


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_checkpoints_are_saved_kept_and_restored(scheme, google, monkeypatch):
    monkeypatch.setenv("OBJECT_STORE", str(google))

    def state(value):
        mesh = parallel.make_mesh()
        tree = {"bank": np.full((16, 4), value, np.float32), "step": np.int32(value)}
        layouts = {"bank": parallel.by_record(mesh), "step": parallel.replicated(mesh)}
        return {name: jax.device_put(x, layouts[name]) for name, x in tree.items()}

    folder = storage.path(f"{scheme}://bucket/{scheme}/checkpoints/last")
    checkpoints = Checkpoints(folder)
    assert checkpoints.restore(state(0)) is None
    for step in (1, 2, 3):
        checkpoints.save(step, state(step), {"best": step / 10})
    checkpoints.close()
    assert checkpoints.steps() == [2, 3]
    next((folder / "3" / "arrays" / "d").iterdir()).write_bytes(b"short")
    with pytest.warns(UserWarning, match="3 is damaged"):
        step, tree, notes = checkpoints.restore(state(0))
    assert (step, notes["best"]) == (2, 0.2)
    assert digests(tree) == digests(state(2))


def test_a_copy_is_made_once_and_anew_when_the_files_differ(tmp_path, store):
    folder = storage.path("gs://bucket/data")
    (folder / "a" / "b.txt").write_bytes(b"first")
    copy = storage.local_copy(folder, tmp_path / "copies")
    assert (copy / "a" / "b.txt").read_bytes() == b"first"
    assert storage.local_copy(folder, tmp_path / "copies") == copy
    (folder / "c.txt").write_bytes(b"second")
    other = storage.local_copy(folder, tmp_path / "copies")
    assert other != copy
    assert (other / "c.txt").read_bytes() == b"second"
    assert storage.local_copy(tmp_path, tmp_path / "copies") == tmp_path


def test_files_that_grow_are_written_beside():
    folder = storage.path("gs://bucket/run")
    (folder / "metrics.jsonl").write_bytes(b"1\n")
    beside = storage.Beside(folder, "metrics.jsonl", "none")
    with (beside.local / "metrics.jsonl").open("a") as file:
        file.write("2\n")
    (beside.local / "tensorboard").mkdir()
    (beside.local / "tensorboard" / "events").write_text("e")
    assert (folder / "metrics.jsonl").read_bytes() == b"1\n"
    beside.upload()
    assert (folder / "metrics.jsonl").read_bytes() == b"1\n2\n"
    assert (folder / "tensorboard" / "events").read_text() == "e"
    beside.close()
    assert not beside.local.exists()


@pytest.mark.parametrize("address", ["gs://bucket/run", "local"])
def test_a_folder_has_one_writer(address, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.05)
    folder = storage.path(address) if "://" in address else tmp_path / address
    with lock.held(folder):
        with lock.held(folder):  # the same process may ask again
            pass
        refused = []

        def other():
            try:
                with (lock._object if storage.remote(folder) else lock._file)(folder / lock.NAME):
                    pass
            except UserError as error:
                refused.append(str(error))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert "is in use by process" in refused[0]
    assert not (folder / lock.NAME).exists()
    with lock.held(folder):
        pass


def test_the_lock_of_one_that_was_killed_is_taken_over(monkeypatch):
    monkeypatch.setattr(lock, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.2)
    path = storage.path("gs://bucket/run") / lock.NAME
    path.write_bytes(json.dumps({"id": "gone", "time": 0}).encode())
    with lock.held(path.parent):
        assert json.loads(path.read_bytes())["id"] != "gone"


def test_the_cache_may_be_in_a_store(monkeypatch, tmp_path):
    monkeypatch.setenv("ECG_JAX_CACHE", "gs://bucket/cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert str(cache.folder("text")) == "gs://bucket/cache/text"
    assert cache.local("data") == tmp_path / "ecg_jax" / "data"
    monkeypatch.setenv("ECG_JAX_LOCAL", str(tmp_path / "here"))
    assert cache.local("data") == tmp_path / "here" / "data"


def test_an_address_that_a_program_cannot_use_ends_it_with_one_line():
    command = [sys.executable, "-m", "ecg_jax.evaluate", "--workdir=ftp://host/run"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ftp://host/run: ftp:// is not supported")
