"""ECG representations from recordings and their clinical reports, in JAX/Flax."""

from typing import Any

__version__ = "0.1.0"

# An ml_collections.ConfigDict; a type checker cannot know its fields. It is here because networks
# and methods read a config, and `run.config`, which checks one, reads what those have to offer.
Config = Any
