"""Where a figure comes from: code, packages, devices, text tower."""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import ecg_jax
from ecg_jax.run.experiment import Experiment

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "transformers")


def provenance(experiment: Experiment) -> dict[str, Any]:
    """What a figure needs to be traced: code, packages, devices, text tower."""
    return {
        **software(),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "text_tower": experiment.described_tower(),
    }


def software() -> dict[str, Any]:
    """Versions of the code and of what its figures depend on."""
    return {
        "ecg_jax": ecg_jax.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def _commit() -> str | None:
    """The commit of the clone that this package is run from, if it is one."""
    git = [
        "git",
        "-C",
        str(Path(__file__).parent),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
    ]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
