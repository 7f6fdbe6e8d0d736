"""The index of a split on disk: what a start finds in place of a pass over the records."""

import numpy as np
import pytest

from ecg_jax.data import index, records
from tfds_builders import prepare
from tfds_builders.simulated.layouts import write_ptb_xl


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("ECG_JAX_LOCAL", str(tmp_path / "local"))
    write_ptb_xl(tmp_path / "source", records=12, rates=(100,))
    options = ["--source", str(tmp_path / "source"), "--data_dir", str(tmp_path / "data")]
    assert prepare.main(["ptb_xl", *options, "--rate", "100"]) == 0
    return tmp_path


def load(prepared, seconds=10.0):
    return records.load(prepared / "data", "ptb_xl", 100, "train", seconds=seconds, stored=True)


def test_a_second_start_reads_no_record(prepared, monkeypatch):
    first = load(prepared)
    (file,) = (prepared / "local" / "index").iterdir()
    passes, scan = [], records._scan
    monkeypatch.setattr(records, "_scan", lambda *args: passes.append(1) or scan(*args))
    again = load(prepared)
    assert not passes and again.fingerprint() == first.fingerprint()
    assert again.report == first.report and again.record_id.dtype == first.record_id.dtype
    np.testing.assert_array_equal(again.person, first.person)
    np.testing.assert_array_equal(again.ecg[np.arange(3)], first.ecg[np.arange(3)])
    assert load(prepared, seconds=5.0).ecg.shape[1] == 500 and passes == [1]
    file.write_bytes(file.read_bytes()[:100])
    assert load(prepared).fingerprint() == first.fingerprint() and len(passes) == 2
    assert load(prepared).fingerprint() == first.fingerprint() and len(passes) == 2


def test_equal_texts_are_in_memory_once():
    texts = ["".join(["a", "b"]), "".join(["a", "b"]), ""]
    assert len({id(text) for text in index.shared(texts)}) == 2
    assert index._texts(*index._packed([*texts, "ü"])) == [*texts, "ü"]
    assert index.key("") == "" and index.key("x", T=1) != index.key("x", T=2)
