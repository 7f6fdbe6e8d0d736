"""Batches do not depend on the number of devices, and an epoch sees every record once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecg_jax.data import resident
from ecg_jax.errors import UserError
from ecg_jax.runtime import parallel

N, T, SHARDS, BATCH = 83, 4, 8, 16


def split(devices):
    ecg = np.arange(N, dtype=np.int16)[:, None, None] * np.ones((1, T, 12), np.int16)
    mask = np.ones((N, 12), bool)
    mesh = parallel.make_mesh(jax.devices()[:devices])
    text = np.arange(N, dtype=np.int32)
    return resident.put(mesh, ecg, mask, text, shards=SHARDS, seed=3)


def batches(devices, steps=range(12)):
    per_epoch = resident.steps_per_epoch(N, BATCH, SHARDS)
    draw = jax.jit(resident.draw, static_argnums=(1, 3, 4))
    data = split(devices)
    return [jax.device_get(draw(data, 5, jnp.int32(s), per_epoch, BATCH)) for s in steps]


def test_the_same_on_one_and_eight_devices():
    for a, b in zip(batches(1), batches(8), strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def test_an_epoch_draws_no_record_twice_and_epochs_differ():
    per_epoch = resident.steps_per_epoch(N, BATCH, SHARDS)
    assert per_epoch == 5
    seen = [np.concatenate([b.row for b in batches(2, range(e * 5, e * 5 + 5))]) for e in (0, 1)]
    for ids in seen:
        assert len(set(ids.tolist())) == per_epoch * BATCH
        assert ids.min() >= 0 and ids.max() < N
    assert seen[0].tolist() != seen[1].tolist()
    assert len(set(np.concatenate(seen).tolist())) > len(set(seen[0].tolist()))


def test_rows_stay_together():
    for batch in batches(4, range(3)):
        np.testing.assert_array_equal(batch.ecg[:, 0, 0], batch.row)
        np.testing.assert_array_equal(batch.ecg[:, -1, -1], batch.row)


def test_no_record_crosses_devices():
    data = split(8)
    draw = jax.jit(
        lambda s, step: resident.draw(s, 5, step, 5, BATCH).ecg,
        out_shardings=parallel.by_record(parallel.make_mesh()),
    )
    text = draw.lower(data, jnp.int32(0)).compile().as_text()
    assert "all-gather" not in text
    assert "all-to-all" not in text


def test_bad_sizes():
    with pytest.raises(UserError, match="multiple of 8"):
        resident.steps_per_epoch(N, 12, SHARDS)
    with pytest.raises(UserError, match="do not fill"):
        resident.steps_per_epoch(10, 16, SHARDS)
    with pytest.raises(UserError, match="3 devices"):
        split(3)
