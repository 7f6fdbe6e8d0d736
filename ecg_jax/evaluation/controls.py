"""What a figure is worth nothing without: the same network, untrained."""

from typing import Any

import jax
import numpy as np

from ecg_jax.data import normalize
from ecg_jax.run.experiment import Experiment
from ecg_jax.runtime import parallel


def calibrated(
    experiment: Experiment, params: Any, state: Any, batches: int = 64
) -> tuple[Any, Any]:
    """The control: random weights, with the BatchNorm statistics of clean training records.

    At its initial statistics (mean 0, variance 1) a deep random network hardly tells two records
    apart; with those of the data it is the baseline that published figures often fail to beat.
    """
    config, train = experiment.config, experiment.train
    devices, sharding = experiment.mesh.devices.size, parallel.by_record(experiment.mesh)
    size = max(min(config.evaluate.batch_size, len(train)) // devices, 1) * devices
    rng = np.random.default_rng(config.seed)

    @jax.jit
    def observe(params: Any, state: Any, ecg: jax.Array, mask: jax.Array) -> Any:
        x = normalize.normalize(ecg, mask, config.normalize)
        with parallel.mesh_of(ecg):
            return experiment.method.train_encode(params, state, x, mask)[1]

    for _ in range(batches):  # of the initial statistics 0.9^64 = 0.1 % remains
        rows = rng.choice(len(train), size, replace=False)
        ecg, mask = (
            parallel.put_rows(array, rows, sharding) for array in (train.ecg, train.lead_mask)
        )
        state = observe(params, state, ecg, mask)
    return params, state
