"""ECG representations from recordings and their clinical reports, in JAX/Flax.

    import ecg_jax

    model = ecg_jax.load("FOLDER")              # an export, a run, or "hf:OWNER/NAME"
    recording = ecg_jax.read("record.xml")      # any format of `tfds_builders.formats`
    model.features(recording)
    model.zero_shot(recording, ["left bundle branch block", "atrial fibrillation"])
    model.classify(recording, task="super")

These names are looked up when they are first used: importing the package, and reading recordings,
needs no JAX.
"""

import importlib
from typing import Any

from ecg_jax import errors

__version__ = "0.1.0"

# An ml_collections.ConfigDict; a type checker cannot know its fields. It is here because networks
# and methods read a config, and `run.config`, which checks one, reads what those have to offer.
Config = Any

# name -> the module that has it. `__init__.pyi` says the same to type checkers.
_FACE = {
    "Model": "ecg_jax.inference.model",
    "Recording": "ecg_jax.data.recording",
    "UserError": "ecg_jax.errors",
    "from_array": "ecg_jax.data.recording",
    "load": "ecg_jax.inference.model",
    "read": "ecg_jax.data.recording",
}


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_FACE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_FACE])


errors.heed_interrupts(__name__)
