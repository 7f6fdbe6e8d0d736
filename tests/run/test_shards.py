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


def test_a_run_keeps_its_shards(small, tmp_path):
    assert workdir.saved_shards(tmp_path / "new") is None
    small.shards = 8
    workdir.claim(tmp_path / "run", open_experiment(small))
    assert workdir.saved_shards(tmp_path / "run") == 8
