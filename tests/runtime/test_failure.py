"""An error of one process ends all of them at once, with its line and status 2."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import local

ROOT = Path(__file__).parents[2]
SECONDS = 15  # from the error on


def processes(how, who, count=2):
    """Runs `failing.py` to its ends: [(status, stderr)], and how long after the error it took."""
    flags = [f"--coordinator=127.0.0.1:{local.free_port()}", f"--processes={count}"]
    running = [
        subprocess.Popen(
            [sys.executable, "tests/runtime/failing.py", how, str(who), *flags, f"--process={i}"],
            cwd=ROOT,
            env=os.environ | local.environment(1, 0, i) | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]
    outputs = [process.communicate(timeout=300)[1] for process in running]
    ended = time.time()
    began = max(float(re.search(r"failing at ([\d.]+)", text)[1]) for text in outputs)
    return [(p.returncode, text) for p, text in zip(running, outputs, strict=True)], ended - began


@pytest.mark.parametrize(
    ("how", "who", "line"),
    [
        ("error", 0, "a disk is full: make room"),
        ("error", 1, "a disk is full: make room"),
        ("thread", 1, "a disk is full: make room"),
        ("finished", 1, "a disk is full: make room"),
        ("file", 1, "/no/such/file: No such file or directory"),
        ("writer", 1, "could not write a checkpoint in /"),
        ("fault", 0, "ValueError: this should not be"),
        ("elsewhere", 1, "process 0 exchanges __main__.main, and process 1 __main__.fail"),
    ],
)
def test_an_error_of_one_ends_both_with_its_line(how, who, line):
    ended, seconds = processes(how, who)
    for i, (status, errors) in enumerate(ended):
        (found,) = [e for e in errors.splitlines() if e.startswith("error: ")]
        assert line in found
        assert status == 2
        if how not in ("elsewhere", "fault"):
            assert ("Traceback" in errors) is False
            assert found.startswith(f"error: process {who}: ") is (i != who)
    assert seconds < SECONDS
