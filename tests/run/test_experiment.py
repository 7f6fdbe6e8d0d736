"""What a config names, opened."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from ecg_jax.errors import UserError
from ecg_jax.methods import Encoded, build
from ecg_jax.run import experiment as experiment_lib
from ecg_jax.run import workdir
from ecg_jax.run.experiment import Experiment
from ecg_jax.runtime import hosts, parallel


def test_a_batch_is_fetched_while_the_next_one_is_computed(small, monkeypatch):
    small.evaluate.batch_size = 8
    experiment, events = Experiment(small, parallel.make_mesh(), None, None), []  # type: ignore[arg-type]

    def encode(params, state, ecg, mask):
        events.append("compute")
        return Encoded(ecg[:, 0, :2], ecg[:, 0, 2:4], ecg)

    def fetch(x):
        events.append("fetch")
        return jax.tree.map(np.asarray, x)

    experiment.__dict__["_encode"] = lambda keep: encode
    monkeypatch.setattr(experiment_lib.jax, "device_get", fetch)
    ecg = np.arange(20 * 4 * 12).reshape(20, 4, 12).astype(np.int16)

    class Split(SimpleNamespace):
        def __len__(self):
            return len(self.ecg)

    mask = np.ones((20, 12), bool)
    encoded = experiment.encode(
        None, None, Split(dataset="d", split="test", ecg=ecg, lead_mask=mask)
    )
    assert events == ["compute", "compute", "fetch", "compute", "fetch", "fetch"]
    np.testing.assert_array_equal(encoded.features, ecg[:, 0, :2])


def test_a_locked_config_as_the_command_line_has_it_is_built(small):
    small.lock()
    assert build(small).platform == "cpu"
    assert "platform" not in small


def test_what_steers_a_collective_is_compared_between_hosts(small, monkeypatch):
    def other(name, value):
        def share(text):
            fields = json.loads(text)
            return [text, json.dumps({**fields, name: value} if name in fields else fields)]

        return share

    monkeypatch.setattr(hosts, "share", other("build", True))
    with pytest.raises(UserError, match="build is False on process 0 and True on 1"):
        workdir.check_hosts(small)
    monkeypatch.setattr(hosts, "share", other("x64", True))
    with pytest.raises(UserError, match="different numerics: x64 is False on process 0 and True"):
        workdir.check_hosts(small)
    monkeypatch.setattr(hosts, "share", other("data_dir", "elsewhere"))
    workdir.check_hosts(small)  # each may have a copy of its own
