"""Where a figure comes from: code, packages, devices, text tower."""

import contextlib
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import ecg_jax
from ecg_jax import Config
from ecg_jax.models import conv1d
from ecg_jax.models.resnet1d import activations
from ecg_jax.run.experiment import Experiment

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "transformers")


def provenance(experiment: Experiment) -> dict[str, Any]:
    """What a figure needs to be traced: code, packages, devices, text tower."""
    return {
        **software(),
        "numerics": numerics(experiment.config, experiment.method.platform),
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


def numerics(config: Config, on: str) -> dict[str, Any]:
    """What a run's figures depend on and a machine, or JAX's own options, may decide; `on` is the
    platform of its devices."""
    options: Any = jax.config
    return {
        "dtype": str(activations(config.model.dtype, on)),
        "convolution": conv1d.resolved(config.model.convolution, on),
        "random": options.jax_default_prng_impl,
        "random_partitionable": bool(options.jax_threefry_partitionable),
        "x64": bool(options.jax_enable_x64),
        "matmul_precision": options.jax_default_matmul_precision or "default",
    }


def archived(root: Path) -> str | None:
    """The commit that `git archive` filled into .commit; None in a clone."""
    with contextlib.suppress(OSError):
        text = (root / ".commit").read_text().strip()
        if re.fullmatch("[0-9a-f]{40}", text):
            return text[:12]
    return None


def _commit() -> str | None:
    """The commit of the clone, or of the archive of one, that this package is run from."""
    root = Path(__file__).parents[2]
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(git, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return archived(root)
    return archived(root) or done.stdout.strip()
