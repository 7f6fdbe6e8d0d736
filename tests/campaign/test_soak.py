"""A short soak; `soak.py` has the long one."""

from campaign.soak import soak


def test_a_run_that_is_stopped_and_killed_ends_as_an_undisturbed_one(simulated, tmp_path):
    """SIGTERM to one of two processes, after 103 updates without a transfer, which `train` forbids
    there: both save at one step. Alone, the run goes on and is killed; two finish it."""
    faults = [
        (2, {"kind": "stop", "process": 1, "step": 104}),
        (1, {"kind": "kill", "process": 0, "step": 4}),
    ]
    log, size = [], {"epochs": 13, "batch_size": 32}
    assert not soak(simulated, tmp_path, faults=faults, log=log.append, **size)
    starts = [line.split(" | ") for line in log[2:]]
    assert [line[3] for line in starts] == ["75 75", "-9", "0"], log
    assert 103 <= int(starts[0][-1].rstrip(" |")) < 126
