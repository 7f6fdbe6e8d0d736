"""METS: a frozen language model for ECG zero-shot learning (Li et al. 2023), equations 1-4.

Its loss and towers are ETP's. What differs is in `configs/mets.py`: the template around the
report, heads of 128 dimensions, learning rate, weight decay and batch.
"""

from ecg_jax.methods.etp import build

__all__ = ["build"]
