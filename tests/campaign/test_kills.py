"""A short kill campaign; `kills.py` has the long one. In a process without JAX's threads, as it
forks."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COUNT = 11  # with those of tests/test_kill.py fifteen


def test_what_is_killed_is_finished_as_if_undisturbed(cache):
    done = subprocess.run(
        [sys.executable, "tests/campaign/kills.py", f"--count={COUNT}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert re.search(rf"^\| all \|  \| {COUNT} \| \d+ \| 0 \|", done.stdout, re.M), done.stdout
