"""ECG representations from recordings and their clinical reports, in JAX/Flax."""

__version__ = "0.1.0"
