"""Where a figure comes from: code, packages, devices, text tower."""

import contextlib
import os
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
        "seed_offset": int(options.jax_random_seed_offset),
        "dtype_promotion": options.jax_numpy_dtype_promotion,
        "xla_flags": flags("XLA_FLAGS"),
        "libtpu_flags": flags("LIBTPU_INIT_ARGS"),
        "tf32_override": os.environ.get("NVIDIA_TF32_OVERRIDE", ""),
    }


# Of XLA's flags: what does not change a figure.
HARMLESS = ("--xla_force_host_platform_device_count", "--xla_dump", "--xla_gpu_cuda_data_dir")


def flags(name: str) -> str:
    """The flags in a variable of the environment, sorted, without those that change no figure."""
    given = sorted(os.environ.get(name, "").split())
    return " ".join(flag for flag in given if not flag.startswith(HARMLESS))


def archived(root: Path) -> str | None:
    """The commit that `git archive` filled into .commit; None in a clone."""
    with contextlib.suppress(OSError):
        text = (root / ".commit").read_text(encoding="utf-8").strip()
        if re.fullmatch("[0-9a-f]{40}", text):
            return text[:12]
    return None


def _commit() -> str | None:
    """The commit of the clone, or of the archive of one, that this package is run from."""
    root = Path(__file__).parents[2]
    if found := archived(root):
        return found
    # A hook's or a dotfile manager's GIT_DIR is another repository.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", env=environment, check=True
        )
        return done.stdout.strip()

    try:
        if not Path(git("rev-parse", "--show-toplevel")).samefile(root):
            return None  # installed inside of another repository
        return git("describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
