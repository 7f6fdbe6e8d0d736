"""A learned temperature: 1 / tau has CLIP's bound, and comes back from it."""

import math

import agreement
import jax.numpy as jnp
import pytest

from ecg_jax.methods import etp
from ecg_jax.run.experiment import open_experiment
from ecg_jax.training import feed, optim
from ecg_jax.training.state import init
from ecg_jax.training.step import make_dispatch

MOST = math.log(etp.MAX_SCALE)


@pytest.fixture
def begun(simulated, monkeypatch):
    """dispatch, data and a state whose 1 / tau has reached its bound, of random networks."""
    agreement.shallow(monkeypatch.setattr)
    config = agreement.tiny("mets", simulated)
    assert config.model.learn_temperature
    config.optimizer.update(learning_rate=1e-2, warmup_epochs=0)
    experiment = open_experiment(config)
    data, plan, steps = feed.load(experiment)
    optimizer = optim.build(config, steps)
    state = init(experiment, optimizer, plan)
    state = state.replace(params={**state.params, "log_scale": jnp.float32(MOST)})
    return make_dispatch(config, experiment.method, optimizer, steps), data, state


@pytest.mark.parametrize("beyond", [0.0, 1.0])
def test_it_comes_back(begun, beyond):
    dispatch, data, state = begun
    start = {**state.params, "log_scale": state.params["log_scale"] + beyond}
    state, scales = state.replace(params=start), []
    for _ in range(3):
        state, metrics = dispatch(state, data, 1)
        scales.append(float(state.params["log_scale"]))
        assert metrics["gradient_norm"][0] > 0
    assert scales[0] <= MOST + 1e-6
    assert scales[2] < scales[0] and scales[2] < MOST - 1e-3  # random networks want it lower
