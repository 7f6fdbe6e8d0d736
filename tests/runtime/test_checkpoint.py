"""Checkpoints come back whole, or are known not to be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecg_jax.errors import UserError
from ecg_jax.runtime import parallel
from ecg_jax.runtime.checkpoint import Checkpoints, digests


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


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, delete])
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


def test_another_model_is_not_loaded(tmp_path):
    checkpoints = saved(tmp_path, 1)
    other = state() | {"kernel": jnp.zeros((512, 513))}
    with pytest.warns(UserWarning), pytest.raises(UserError):
        checkpoints.restore(other)
