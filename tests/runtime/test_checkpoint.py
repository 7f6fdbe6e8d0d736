"""Checkpoints come back whole, or are known not to be."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stored_state import stored_state

from ecg_jax.errors import UserError
from ecg_jax.runtime import parallel
from ecg_jax.runtime.arrays import digests
from ecg_jax.runtime.checkpoint import Checkpoints, named
from ecg_jax.training.state import TrainState


def state(value=0.0, devices=8):
    mesh = parallel.make_mesh(jax.devices()[:devices])
    rng = np.random.default_rng(0)
    tree = {
        "kernel": rng.standard_normal((512, 512)).astype(np.float32) + np.float32(value),
        "step": np.int32(value),
    }
    return jax.tree.map(lambda x: jax.device_put(x, parallel.replicated(mesh)), tree)


def saved(folder, *values):
    checkpoints = Checkpoints(folder)
    for value in values:
        checkpoints.save(value, state(value), {"best": value / 10})
    checkpoints.close()
    return Checkpoints(folder)


def test_comes_back_bit_for_bit_on_other_devices(tmp_path):
    checkpoints = saved(tmp_path, 1, 2)
    step, tree, notes = checkpoints.restore(state(devices=2))
    assert (step, notes["best"]) == (2, 0.2)
    assert digests(tree) == digests(state(2))
    assert tree["kernel"].sharding == state(devices=2)["kernel"].sharding


def test_the_state_at_the_call_is_saved_though_the_next_step_writes_over_it(tmp_path):
    checkpoints, tree = Checkpoints(tmp_path), state(1)
    step = jax.jit(lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0)
    checkpoints.save(1, tree, {})
    for _ in range(5):
        tree = step(tree)
    checkpoints.close()
    assert digests(checkpoints.restore(state())[1]) == digests(state(1))


def test_only_the_newest_are_kept(tmp_path):
    saved(tmp_path, 1, 2, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3"]


def test_none_yet(tmp_path):
    assert Checkpoints(tmp_path).restore(state()) is None


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(folder):
    file = largest_file(folder)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip_a_bit(folder):
    file = largest_file(folder)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def delete(folder):
    largest_file(folder).unlink()


def index(change):
    """A damage of what a checkpoint says of itself."""

    def damage(folder):
        text = (folder / "index.json").read_text()
        (folder / "index.json").write_text(change(text))

    return damage


DAMAGES = {
    "cut": truncate,
    "flipped": flip_a_bit,
    "gone": delete,
    "index cut": index(lambda text: text[:50]),
    "index a list": index(lambda text: f"[{text}]"),
    "index of other arrays": index(lambda text: text.replace('{"kernel": ', '["kernel"], "x": {')),
    "index of other notes": index(lambda text: text.replace('"best": 0.2', '"best": 0.3')),
    "index of no format": index(lambda text: text.replace('"format": 2', '"format": "2"')),
    "index of format 1": index(lambda text: text.replace('"format": 2', '"format": 1')),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_skipped_with_a_warning(tmp_path, damage):
    checkpoints = saved(tmp_path, 1, 2)
    damage(tmp_path / "2")
    with pytest.warns(UserWarning, match=r"2 is damaged .*: skipped"):
        step, tree, _ = checkpoints.restore(state())
    assert step == 1
    assert digests(tree) == digests(state(1))
    checkpoints.save(2, state(2), {"best": 0.0})
    checkpoints.wait()
    assert checkpoints.restore(state())[0] == 2


def test_a_save_before_a_damaged_step_is_kept(tmp_path):
    checkpoints = saved(tmp_path, 10, 20)
    truncate(tmp_path / "20")
    with pytest.warns(UserWarning, match="skipped"):
        assert checkpoints.restore(state())[0] == 10
    checkpoints.save(15, state(15), {"best": 0.0})
    checkpoints.wait()
    step, tree, _ = checkpoints.restore(state())
    assert (step, digests(tree)) == (15, digests(state(15)))


def test_no_room(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path, 1)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("ecg_jax.runtime.checkpoint.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match=r"no room for a checkpoint .* 2\.2 MB are needed"):
        checkpoints.save(2, state(2), {})
    assert checkpoints.restore(state())[0] == 1


def test_none_whole(tmp_path):
    checkpoints = saved(tmp_path, 1)
    truncate(tmp_path / "1")
    with pytest.warns(UserWarning), pytest.raises(UserError, match=r"no checkpoint .* is whole"):
        checkpoints.restore(state())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"kernel": jnp.zeros((512, 513))},
            r"kernel is float32\[512,512\] there and .*512,513\] here",
        ),
        ({"bias": jnp.zeros(3)}, r"bias is missing there and float32\[3\] here"),
        ({"kernel": jnp.zeros((512, 512), jnp.bfloat16)}, r"float32\[512,512\] there and bfloat16"),
    ],
)
def test_another_model_is_not_loaded_and_not_called_damaged(tmp_path, change, line):
    checkpoints = saved(tmp_path, 1)
    with pytest.raises(UserError, match=f"another model, optimiser or version: .*{line}"):
        checkpoints.restore(state() | change)


def test_names_last_when_a_librarys_tuple_names_its_fields_anew(tmp_path):
    class Old(NamedTuple):
        mu: Any
        nu: Any

    class New(NamedTuple):
        first: Any
        second: Any

    def tree(kind):
        return TrainState(jnp.int32(3), {"w": jnp.ones(2)}, {}, (kind(jnp.zeros(2), jnp.ones(2)),))

    assert list(named(tree(Old))) == ["step", "params/w", "optimizer/0/0", "optimizer/0/1"]
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, tree(Old), {})
    checkpoints.close()
    _, found, _ = checkpoints.restore(tree(New))
    np.testing.assert_array_equal(found.optimizer[0].second, np.ones(2))


def test_arrays_in_parts_go_onto_other_devices(tmp_path):
    def bank(devices, value):
        mesh = parallel.make_mesh(jax.devices()[:devices])
        return {"bank": jax.device_put(value, parallel.by_record(mesh))}

    value = np.arange(48, dtype=np.float32).reshape(16, 3)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, bank(8, value), {})
    checkpoints.close()
    for devices in (1, 2, 8):
        like = bank(devices, np.zeros_like(value))
        _, tree, _ = checkpoints.restore(like)
        np.testing.assert_array_equal(tree["bank"], value)
        assert tree["bank"].sharding == like["bank"].sharding


def test_what_a_killed_save_left_is_no_checkpoint_and_goes(tmp_path):
    checkpoints = saved(tmp_path, 1)
    shutil.copytree(tmp_path / "1", tmp_path / "2")
    (tmp_path / "2" / "index.json").unlink()
    assert checkpoints.restore(state())[0] == 1
    checkpoints.save(3, state(3), {})
    checkpoints.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "3"]


def test_a_format_of_a_later_version(tmp_path):
    checkpoints = saved(tmp_path, 1)
    index = tmp_path / "1" / "index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"format": 99}))
    with pytest.raises(UserError, match="has format 99, and this version reads 2"):
        checkpoints.restore(state())


STORED = Path(__file__).parent / "stored"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", ["orbax", "format1", "format2"])
def test_checkpoints_of_earlier_versions_are_read(tmp_path, version):
    """`orbax`: as runs wrote them before there was a format 1."""
    shutil.copytree(STORED / version, tmp_path / "last")
    like = jax.tree.map(jnp.zeros_like, stored_state())
    step, tree, notes = Checkpoints(tmp_path / "last").restore(like)
    assert (step, notes["best"]) == (7, 0.75)
    jax.tree.map(np.testing.assert_array_equal, tree, stored_state())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"file": "../../elsewhere.bin"}, "is no file of this checkpoint"),
        ({"start": [0]}, "does not say where"),
        ({"shape": [1, 2]}, "is cut short"),
    ],
)
def test_parts_of_format_1_lie_in_its_folder_and_make_a_whole(tmp_path, change, line):
    shutil.copytree(STORED / "format1", tmp_path / "last")
    (path,) = (tmp_path / "last").rglob("index.json")
    index = json.loads(path.read_text())
    next(v for v in index["arrays"].values() if len(v["shape"]) == 2)["parts"][0].update(change)
    path.write_text(json.dumps(index))
    with pytest.warns(UserWarning, match=line), pytest.raises(UserError, match="is whole"):
        Checkpoints(tmp_path / "last").restore(stored_state())
