"""TFDS builders of public ECG datasets: `python -m tfds_builders.prepare --help`."""
