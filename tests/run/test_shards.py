"""How many virtual shards a run has: the default, as many as its devices, or what it has had."""

import pytest

from ecg_jax.run import workdir
from ecg_jax.run.experiment import open_experiment, with_shards


@pytest.mark.parametrize(
    ("given", "devices", "saved", "shards"),
    [
        (32, 8, None, 32),
        (32, 256, None, 256),
        (32, 24, None, 24),
        (64, 256, None, 64),  # named by the user: `resident` says what is wrong
        (32, 16, 256, 256),  # a run that began on 256 devices
        (32, 256, 32, 32),
    ],
)
def test_shards_follow_the_devices(small, given, devices, saved, shards, capsys):
    small.shards = given
    found = with_shards(small, devices, saved)
    assert (found.shards, small.shards) == (shards, given)
    said = capsys.readouterr().out
    assert said.count("\n") == (shards != given)
    assert not said or said.startswith(f"{shards} virtual shards, as ")


@pytest.mark.parametrize(
    ("batch", "devices", "saved", "found"),
    [
        (128, 256, None, 256),  # v5e:16x16
        (128, 64, None, 128),
        (128, 24, None, 144),
        (128, 8, 256, 256),  # a run that began on 256 devices
        (100, 8, None, 100),  # 32 shards: `resident` says what is wrong
    ],
)
def test_the_batch_follows_the_shards(small, batch, devices, saved, found, capsys):
    small.shards, small.batch_size = 32, batch
    assert with_shards(small, devices, saved).batch_size == found
    assert (f"of {found} records in place of {batch}" in capsys.readouterr().out) == (
        found != batch
    )


def test_a_run_keeps_its_shards(small, tmp_path):
    assert workdir.saved_shards(tmp_path / "new") is None
    small.shards = 8
    workdir.claim(tmp_path / "run", open_experiment(small))
    assert workdir.saved_shards(tmp_path / "run") == 8
