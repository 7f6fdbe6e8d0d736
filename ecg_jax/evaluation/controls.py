"""What a figure is worth nothing without: networks that were never trained, and probes of what
needs no recording, or no more of it than its heart rate.

A linear probe of an untrained network already does much of what published encoders do, and more of
it with more features: several networks, or one that is shown groups of leads by themselves. So
there is a grid of them, and each has the pooling of the trained encoder.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ecg_jax import methods
from ecg_jax.data import normalize
from ecg_jax.data.leads import LEADS
from ecg_jax.data.records import Records
from ecg_jax.errors import UserError
from ecg_jax.evaluation.heart_rate import heart_rate
from ecg_jax.evaluation.protocols import features
from ecg_jax.evaluation.subject import Control, Material, Subject
from ecg_jax.methods import Encoded, Method
from ecg_jax.run.experiment import Experiment
from ecg_jax.runtime import parallel


class Untrained(NamedTuple):
    """A form of the untrained network: how many side by side, which leads each pass is shown, and
    what of the config is otherwise."""

    networks: int = 1
    groups: tuple[tuple[str, ...], ...] = (LEADS,)
    model: Mapping[str, int] = MappingProxyType({})
    normalize: str = ""


LEAD_GROUPS = (LEADS[:6], LEADS[6:9], LEADS[9:])
UNTRAINED = {
    "random x 3": Untrained(networks=3),
    "random by leads": Untrained(groups=LEAD_GROUPS),
    "random, 34 layers": Untrained(model={"depth": 34}),
    "random, width 128": Untrained(model={"width": 128}),
    "random, by record": Untrained(normalize="record"),
}
WITHOUT_WAVEFORM = ("age and sex", "heart rate", "report text")
NAMES = ("random", *UNTRAINED, *WITHOUT_WAVEFORM)


def subject(material: Material, name: str) -> Subject | Control | None:
    """The control of that name, one of `NAMES`; None where the records do not say what it needs.

    Raises:
      UserError: there is no control of that name.
    """
    experiment, config = material.experiment, material.experiment.config
    if name == "random":
        return Subject(name, material, *calibrated(experiment, *_start(experiment, 0)))
    if name in UNTRAINED and UNTRAINED[name].model and config.model.encoder != "resnet1d":
        print(f"{name}: left out, it is a form of resnet1d, and this is {config.model.encoder}")
        return None
    if name in UNTRAINED:
        return Control(name, material, untrained(experiment, UNTRAINED[name]))
    if name not in NAMES:
        raise UserError(f"unknown control {name!r}: there are {', '.join(NAMES)}")
    if name == "age and sex":
        known = not np.isnan(experiment.train.person).all()
        return Control(name, material, _person) if known else None
    if name == "heart rate":
        return Control(name, material, _heart_rate)
    if experiment.tower is None or not any(experiment.train.report):
        return None
    return Control(name, material, material.embedded_reports)


def untrained(experiment: Experiment, form: Untrained) -> Callable[[Records], np.ndarray]:
    """What the linear probe is given of an untrained network: the pooled features of each network
    and group of leads, side by side."""
    config = experiment.config.copy_and_resolve_references()
    config.model.update(form.model)
    config.normalize = form.normalize or config.normalize
    method, passes = methods.build(config), []
    for i in range(form.networks):
        for group in form.groups:
            shown = experiment.otherwise(config, _showing(method, group))
            passes.append((shown, calibrated(shown, *_start(shown, i))))

    def encode(split: Records) -> np.ndarray:
        encoded = (shown.encode(*variables, split) for shown, variables in passes)
        return np.hstack([features.pooled(e, config.evaluate) for e in encoded])

    return encode


def calibrated(
    experiment: Experiment, params: Any, state: Any, batches: int = 64
) -> tuple[Any, Any]:
    """Random weights, with the BatchNorm statistics of clean training records.

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


def _start(experiment: Experiment, i: int) -> tuple[Any, Any]:
    """The i-th random network of the config's seed; the first is where its training starts."""
    key = jax.random.key(experiment.config.seed)
    return experiment.init(jax.random.fold_in(key, i) if i else key)


def _showing(method: Method, group: tuple[str, ...]) -> Method:
    """The method, encoding with all other leads zero."""
    if group == LEADS:
        return method
    shown = jnp.isin(jnp.arange(len(LEADS)), jnp.array([LEADS.index(name) for name in group]))

    def encode(params: Any, state: Any, ecg: jax.Array, mask: jax.Array) -> Encoded:
        return method.encode(params, state, jnp.where(shown, ecg, 0), mask & shown)

    def train_encode(params: Any, state: Any, ecg: jax.Array, mask: jax.Array):
        return method.train_encode(params, state, jnp.where(shown, ecg, 0), mask & shown)

    return method._replace(encode=encode, train_encode=train_encode)


def _person(split: Records) -> np.ndarray:
    """float32 [N, 5]: age, its square, sex, and whether each is known."""
    known = ~np.isnan(split.person)
    age, sex = np.where(known, split.person, (60.0, 0.5)).T
    return np.stack([age, age**2, sex, *known.T], axis=1).astype(np.float32)


def _heart_rate(split: Records) -> np.ndarray:
    """float32 [N, 4]: beats per minute, squared and inverted, and whether they are known."""
    rate = heart_rate(split.ecg[:], split.length, split.rate)
    known = ~np.isnan(rate)
    rate = np.where(known, rate, 70.0)
    return np.stack([rate, rate**2, 1 / rate, known], axis=1).astype(np.float32)
