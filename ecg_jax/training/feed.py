"""What a training step is fed: the training split on the mesh or on disk, and the tables that its
records point into."""

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ecg_jax import Config
from ecg_jax.data import normalize, resident
from ecg_jax.data.records import Records
from ecg_jax.data.stream import Stream
from ecg_jax.methods import Plan, View
from ecg_jax.run.experiment import Experiment, report_texts
from ecg_jax.runtime import hosts, parallel


class Tables(NamedTuple):
    """Of the N records of the training split, in copies on every device.

    Attributes:
      texts: float32 [M, F], the embeddings of the distinct reports; F is 0 without a text side.
      text: int32 [N], the row of a record's report in `texts`; or [2, N], those of the same report
        in two languages.
      patient: int32 [N], a number for each patient.
    """

    texts: jax.Array
    text: jax.Array
    patient: jax.Array


class Data(NamedTuple):
    """The training split, on the devices or on disk, or the one batch of a streamed step."""

    split: resident.Split | Stream | resident.Batch
    tables: Tables


def load(experiment: Experiment) -> tuple[Data, Plan, int]:
    """The training data, how long the run is, and the number of steps in an epoch.

    Raises:
      UserError: see `report_texts` and `resident`.
    """
    config, train = experiment.config, experiment.train
    train, texts, text = _texts(experiment, train)
    steps = resident.steps_per_epoch(len(train), config.batch_size, config.shards)
    arrays = (experiment.mesh, train.ecg, train.lead_mask, np.arange(len(train), dtype=np.int32))
    if config.stream:
        dealt = Stream(
            *arrays, shards=config.shards, batch_size=config.batch_size, seed=config.seed
        )
    else:
        put = functools.partial(resident.put, *arrays, shards=config.shards, seed=config.seed)
        dealt = hosts.together(put)
    _, patient = np.unique(train.patient_id, return_inverse=True)
    copies = parallel.replicated(experiment.mesh)
    tables = Tables(*(parallel.put(t, copies) for t in (texts, text, patient.astype(np.int32))))
    return Data(dealt, tables), Plan(len(train), config.epochs * steps), steps


def _texts(experiment: Experiment, train: Records) -> tuple[Records, np.ndarray, np.ndarray]:
    """The records that have a report, if the method reads them, the embeddings [M, F] of the
    distinct ones and the row [N] of each record's own; [2, N] of a run that learns from both
    languages, English first."""
    config = experiment.config
    if experiment.tower is None:
        return train, np.zeros((1, 0), np.float32), np.zeros(len(train), np.int32)
    reports, row = report_texts(config, train)
    if dropped := int((row < 0).sum()):
        print(f"{dropped} of {len(train):,} training records have no report text: left out")
        train, row = train.take(np.flatnonzero(row >= 0)), row[row >= 0]
    if config.text.language == "both":
        others, other = report_texts(config, train, "original")
        known = {text: i for i, text in enumerate(sorted({*reports, *others}))}
        place = [np.array([known[text] for text in part], np.int32) for part in (reports, others)]
        reports, row = list(known), np.stack([place[0][row], place[1][other]])
    if config.text.shuffle:
        row = row[..., np.random.default_rng(config.seed).permutation(row.shape[-1])]
    texts = hosts.from_first(experiment.tower.embed(reports, template=config.text.template))
    return train, texts, row


def feeder(data: Data, step: int, total: int) -> Iterator[Data]:
    """What each call of the dispatch from `step` on is given."""
    if isinstance(data.split, Stream):
        return (Data(batch, data.tables) for batch in data.split.batches(step, total))
    return itertools.repeat(data)


def view(config: Config, data: Data, step: jax.Array, steps: int) -> View:
    """The batch of a global step; inside jit."""
    batch, tables = data.split, data.tables
    if isinstance(batch, resident.Split):
        batch = resident.draw(batch, config.seed, step, steps, config.batch_size)
    assert isinstance(batch, resident.Batch)  # a stream is fed batch by batch
    ecg = normalize.normalize(batch.ecg, batch.lead_mask, config.normalize)
    text = jnp.asarray(tables.text)[..., batch.row]
    if text.ndim == 2:
        key = jax.random.fold_in(jax.random.key(config.seed + 2), step)
        text = jnp.where(jax.random.bernoulli(key, shape=text.shape[1:]), text[0], text[1])
    return View(
        ecg, batch.lead_mask, tables.texts[text], text, batch.row, tables.patient[batch.row]
    )
