"""A short soak; `soak.py` has the long one."""

from campaign.soak import soak


def test_a_run_that_is_stopped_and_killed_ends_as_an_undisturbed_one(simulated, tmp_path):
    faults = [
        (2, {"kind": "stop", "process": 1, "step": 4}),
        (2, {"kind": "kill", "process": 0, "step": 8}),
    ]
    assert not soak(simulated, tmp_path, faults=faults, epochs=4)
