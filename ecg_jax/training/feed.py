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
from ecg_jax.data import normalize, physiology, physiology_table, resident
from ecg_jax.data.records import Records
from ecg_jax.data.stream import Stream
from ecg_jax.errors import UserError
from ecg_jax.methods import Plan, View
from ecg_jax.run.experiment import Experiment, report_texts
from ecg_jax.runtime import hosts, parallel
from ecg_jax.text.reports import sentences
from ecg_jax.text.tower import ILLEGIBLE, UNKNOWN


class Tables(NamedTuple):
    """Of the N records of the training split, in copies on every device.

    Attributes:
      texts: float32 [M, F], the embeddings of the distinct reports; F is 0 without a text side.
      text: int32 [N], the row of a record's report in `texts`; or [2, N], those of the same report
        in two languages.
      patient: int32 [N], a number for each patient.
      physiology: what the records show, see `physiology_table`, of a method that learns from it.
      sentence: int32 [S, N], the rows in `texts` of the single sentences of a record's report, -1
        after its last; or [2, S, N]; None in a run that learns from whole reports alone.
    """

    texts: jax.Array
    text: jax.Array
    patient: jax.Array
    sentence: jax.Array | None = None
    physiology: physiology_table.Features | None = None


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
    train, texts, text, sentence = _texts(experiment, train)
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
    found = (texts, text, patient.astype(np.int32), sentence, _physiology(experiment, train))
    tables = Tables(*jax.tree.map(lambda table: parallel.put(table, copies), found))
    return Data(dealt, tables), Plan(len(train), config.epochs * steps), steps


def _physiology(experiment: Experiment, train: Records) -> physiology_table.Features | None:
    if not experiment.method.physiology:
        return None
    found = hosts.together(lambda: physiology.of_records(train))
    return physiology_table.of(found, experiment.config.seed)


def _texts(
    experiment: Experiment, train: Records
) -> tuple[Records, np.ndarray, np.ndarray, np.ndarray | None]:
    """The records that have a report, if the method reads them, and of `Tables` what is of texts.
    A run that learns from both languages has English first."""
    config = experiment.config
    if experiment.tower is None:
        return train, np.zeros((1, 0), np.float32), np.zeros(len(train), np.int32), None
    languages = [report_texts(config, train)]
    missing = languages[0][1] < 0
    if missing.any():
        dropped = int(missing.sum())
        print(f"{dropped} of {len(train):,} training records have no report text: left out")
        train = train.take(np.flatnonzero(~missing))
    if config.text.language == "both":
        languages.append(report_texts(config, train, "original"))
    own = [[texts[i] for i in row if i >= 0] for texts, row in languages]
    parts = [[sentences(text) for text in texts] for texts in own if config.text.sentences]
    first: dict[str, int] = {}  # the first record that has a text
    for reports in (*own, *parts):
        for i, said in enumerate(reports):
            for text in [said] if isinstance(said, str) else said:
                first.setdefault(text, i)
    distinct = sorted(first)
    place = {text: i for i, text in enumerate(distinct)}
    row = np.array([[place[text] for text in texts] for texts in own], np.int32)
    most = max((len(part) for part in itertools.chain(*parts)), default=0)
    part = np.full((len(own), most, len(train)), -1, np.int32)
    for language, reports in enumerate(parts):
        for i, report in enumerate(reports):
            part[language, : len(report), i] = [place[sentence] for sentence in report]
    if config.text.shuffle:
        order = np.random.default_rng(config.seed).permutation(len(train))
        row, part = row[..., order], part[..., order]
    if len(own) == 1:
        row, part = row[0], part[0]
    names = [
        f"a text of the report of {train.dataset} record {train.record_id[first[text]]}"
        for text in distinct
    ]
    _check_known(experiment, distinct, names)
    texts = hosts.from_first(experiment.tower.embed(distinct, config.text.template, names=names))
    return train, texts, row, part if config.text.sentences else None


def _check_known(experiment: Experiment, reports: list[str], names: list[str]) -> None:
    """Says how much of the reports the text model cannot read; raises a UserError if it is much:
    words that its vocabulary lacks are all one token, and their texts one embedding."""
    tower = experiment.tower
    assert tower is not None
    shares = tower.unknown(reports)
    if not shares.any():
        return
    bad, mean = np.flatnonzero(shares > ILLEGIBLE), float(shares.mean())
    example = names[bad[0] if len(bad) else int(shares.argmax())]
    said = (
        f"{mean:.2%} of the reports' tokens are unknown to {tower.name}, and {len(bad):,} of "
        f"{len(reports):,} distinct reports are mostly so, such as {example}"
    )
    if mean > UNKNOWN:
        raise UserError(
            f"{said}: they would share one embedding; choose a text model of their language "
            "with --config.text.tower, or --config.text.language"
        )
    print(said)


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
    text = _draw_texts(config, tables, batch.row, step)
    shown = jax.tree.map(lambda table: jnp.asarray(table)[batch.row], tables.physiology)
    patient = tables.patient[batch.row]
    return View(ecg, batch.lead_mask, tables.texts[text], text, batch.row, patient, shown)


def _draw_texts(config: Config, tables: Tables, record: jax.Array, step: jax.Array) -> jax.Array:
    """int32 [B], the rows in `texts` of what the records `record` [B] are held against."""
    key = jax.random.fold_in(jax.random.key(config.seed + 2), step)
    text, sentence = jnp.asarray(tables.text)[..., record], None
    if tables.sentence is not None:
        sentence = jnp.asarray(tables.sentence)[..., record]
    if text.ndim == 2:
        english = jax.random.bernoulli(key, shape=record.shape)
        text = jnp.where(english, *text)
        sentence = None if sentence is None else jnp.where(english, *sentence)
    if sentence is None:
        return text
    which, alone = jax.random.split(jax.random.fold_in(key, 1))
    lots = jnp.where(sentence >= 0, jax.random.uniform(which, sentence.shape), -1.0)
    drawn = jnp.take_along_axis(sentence, lots.argmax(axis=0)[None], axis=0)[0]
    return jnp.where(jax.random.bernoulli(alone, config.text.sentences, text.shape), drawn, text)
