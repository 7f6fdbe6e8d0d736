"""Prepared records: what the builders wrote, read into memory once or left on disk."""

import dataclasses
import hashlib
import itertools
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# TFDS is told not to look for TensorFlow before it is imported: nothing here needs it.
os.environ.setdefault("TFDS_NO_TENSORFLOW", "1")

import numpy as np

from ecg_jax.data import challenge, index, sealed
from ecg_jax.data.classes import TASKS
from ecg_jax.data.index import Scanned
from ecg_jax.data.leads import LEADS
from ecg_jax.data.stored import COPY, Stored, cut, digest, read
from ecg_jax.errors import UserError
from ecg_jax.runtime import cache, hosts, storage

MAJOR = 2  # of the builders' versions, whose records are read
CHUNK = 256  # records read at a time
# (dataset, task): labels that are made of others when records are read, and not stored.
DERIVED = {("ptb_xl", "challenge")}
WINDOW = 10.0  # seconds, that a longer recording with annotations is cut into


@dataclasses.dataclass(frozen=True)
class Records:
    """One split; row i of every array is one record.

    Attributes:
      dataset, split, rate: where it comes from; `rate` in Hz.
      ecg: int16 [N, T, 12], microvolts, leads in the order of `LEADS`, zero-padded at the end;
        in memory or on disk.
      length: int32 [N], how many of the T samples are the record's own.
      signal_sha256: uint8 [N, 32], of every record's row of `ecg` as it was read.
      lead_mask: bool [N, 12], true where the record has the lead.
      record_id, patient_id, report: N strings each.
      person: float32 [N, 2], age in years and sex as the dataset codes it (PTB-XL: 1 is female);
        NaN where it is not known.
      labels: task -> bool [N, K]; column k is the class `classes[task][k]`.
      classes: task -> K names.
      signals: "published" where the signals are the publisher's own at this rate, "resampled"
        where the builder made them of another rate's, "simulated".
      segments: uint8 [N, T, 12], which wave each sample of each lead is of: an index into the
        metadata's `segments` (none, P, QRS, T); None where the dataset has no such annotations.
      segments_mask: bool [N, T, 12], false where they say nothing: there is no wave there only
        where this is true and `segments` 0.
      recorded: float64 [N], days since 1970; NaN where it is not known. None in records that were
        made without it.
    """

    dataset: str
    split: str
    rate: int
    ecg: np.ndarray | Stored
    length: np.ndarray
    signal_sha256: np.ndarray
    lead_mask: np.ndarray
    record_id: np.ndarray
    patient_id: np.ndarray
    report: list[str]
    person: np.ndarray
    labels: dict[str, np.ndarray]
    classes: dict[str, list[str]]
    signals: str = ""
    segments: np.ndarray | None = None
    segments_mask: np.ndarray | None = None
    recorded: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ecg)

    @property
    def leads(self) -> list[str]:
        """The leads that some of the records have."""
        return [name for i, name in enumerate(LEADS) if self.lead_mask[:, i].any()]

    def take(self, rows: np.ndarray | Sequence[int]) -> "Records":
        """The records at `rows`, in that order."""
        rows = np.asarray(rows)
        names = ("length", "signal_sha256", "lead_mask", "record_id", "patient_id", "person")
        names += ("segments", "segments_mask") if self.segments is not None else ()
        return dataclasses.replace(
            self,
            ecg=self.ecg.take(rows, axis=0),
            **{name: getattr(self, name)[rows] for name in names},
            report=[self.report[i] for i in rows],
            recorded=None if self.recorded is None else self.recorded[rows],
            labels={task: y[rows] for task, y in self.labels.items()},
        )

    def fingerprint(self) -> str:
        """sha256 over ids, signals, reports and labels: the split hash kept with every result."""
        digest = hashlib.sha256(f"{self.dataset}/{self.split}/{self.rate}".encode())
        for array in (self.signal_sha256, self.length, self.lead_mask):
            digest.update(np.ascontiguousarray(array).data)
        for text in (*self.record_id, *self.patient_id, *self.report):
            digest.update(text.encode() + b"\0")
        for task in sorted(self.labels):
            if (self.dataset, task) in DERIVED:
                continue  # says nothing that the others do not
            digest.update("\0".join([task, *self.classes[task]]).encode())
            digest.update(np.packbits(self.labels[task]).data)
        if self.segments is not None and self.segments_mask is not None:
            digest.update(np.where(self.segments_mask, self.segments, 255).astype(np.uint8).data)
        return digest.hexdigest()


def folder(data_dir: str | Path, dataset: str, rate: int) -> Path:
    """The newest prepared version of a dataset, of those that this version of the library reads;
    of an object store's, a copy on this machine.

    Raises:
      UserError: there is none; the line holds the command that prepares it.
    """
    root = storage.path(data_dir) / dataset / f"rate{rate}"
    versions = root.iterdir() if storage.exists(root) else ()
    complete = [p for p in versions if storage.exists(p / "dataset_info.json")]
    numbers = {
        p: [int(n) for n in p.name.split(".")]
        for p in complete
        if re.fullmatch(r"\d+\.\d+\.\d+", p.name)
    }
    if not complete and dataset not in TASKS:
        raise UserError(f"no dataset {dataset!r}: there are {', '.join(TASKS)}")
    readable = [p for p, number in numbers.items() if number[0] == MAJOR]
    if readable:
        return storage.local_copy(max(readable, key=numbers.__getitem__), cache.local("data"))
    state = f"is not prepared in {data_dir}: run"
    if numbers:
        other = max(numbers, key=numbers.__getitem__).name
        state = f"in {data_dir} is of version {other}, needed is {MAJOR}: prepare it again with"
    raise UserError(
        f"{dataset} at {rate} Hz {state} `python -m "
        f"tfds_builders.prepare {dataset} --rate {rate} --data_dir {data_dir}` "
        "(with `--source DIR` if you have the recordings already)"
    )


def signal_bytes(
    data_dir: str | Path, dataset: str, rate: int, split: str, *, seconds: float = 10.0
) -> int:
    """How much memory the signals of a split take. Raises as `load` does."""
    _, builder = _open(data_dir, dataset, rate, split)
    return builder.info.splits[split].num_examples * round(seconds * rate) * len(LEADS) * 2


def load(
    data_dir: str | Path,
    dataset: str,
    rate: int,
    split: str,
    *,
    seconds: float = 10.0,
    stored: bool = False,
) -> Records:
    """Reads a split: the first `seconds` of every record, zero-padded where it is shorter.

    Args:
      stored: leaves the signals on disk; everything else is read, by several processes each a
        part, which they exchange. All of them must call it then.

    Raises:
      UserError: not prepared, no such split, records that are not what this project reads (other
        units, another rate, another lead order, label columns without names), or whose labels are
        of more than `seconds`.
    """
    path, builder = _open(data_dir, dataset, rate, split)
    metadata = dict(builder.info.metadata or {})
    _check_metadata(path, metadata, rate)
    sealed.check(path, builder, metadata, split)
    _check_seconds(path, builder.info.features, seconds)
    T = round(seconds * rate)
    classes = {task: list(names) for task, names in metadata["classes"].items()}
    waves = T if "segments" in builder.info.features else 0
    N = builder.info.splits[split].num_examples
    if N == 0:
        raise UserError(f"{path}: split {split!r} has no records")
    source = builder.as_data_source(split)
    if stored:
        info = builder.info.splits[split]
        digest = dict(metadata.get("records_sha256") or {}).get(split, "")
        same = {"records": N, "bytes": info.num_bytes, "sha256": digest}
        check_hosts({f"{split} {what}": value for what, value in same.items()})
        of = {"split": split, "T": T, "source": metadata.get("source_sha256", "")}
        name = index.key("" if waves else digest, **of)
        scanned = _indexed(name, path, source, N, T, classes, waves)
        ecg = Stored(source, T, np.arange(N), scanned.signal_sha256)
    else:
        ecg = np.zeros((N, T, len(LEADS)), np.int16)
        scanned = _scan(path, source, np.arange(N), T, classes, waves, ecg)
    labels = dict(zip(classes, _columns(scanned.labels, classes), strict=True))
    if (dataset, "challenge") in DERIVED and "all" in classes:
        labels["challenge"] = challenge.from_scp(labels["all"], classes["all"])
        classes = {**classes, "challenge": list(challenge.PTB_XL)}
    return Records(
        dataset=dataset,
        split=split,
        rate=rate,
        ecg=ecg,
        length=scanned.length,
        signal_sha256=scanned.signal_sha256,
        lead_mask=scanned.lead_mask,
        record_id=np.array(scanned.record_id),
        patient_id=np.array(scanned.patient_id),
        report=scanned.report,
        person=scanned.person,
        labels=labels,
        classes=classes,
        signals=metadata["signals"],
        segments=scanned.segments if waves else None,
        segments_mask=scanned.segments_mask if waves else None,
        recorded=scanned.recorded,
    )


def _indexed(
    name: str, path: Path, source: Any, N: int, T: int, classes: dict[str, list[str]], waves: int
) -> Scanned:
    """All but the signals: from the index of an earlier start if all processes have it, or else
    from a pass over the records, of which each process makes a part."""
    found = index.read(name, N, sum(map(len, classes.values())))
    if found is not None and set(hosts.share("found")) == {"found"}:
        return found
    if found is None:
        hosts.share("missing")
    part: Any = hosts.together(lambda: _scan(path, source, hosts.part(N), T, classes, waves))
    whole = Scanned(*(hosts.put_together(column, N) for column in part))
    shared = {field: index.shared(getattr(whole, field)) for field in index.TEXTS}
    whole = whole._replace(**shared)
    index.write(name, whole)
    return whole


def _scan(
    path: Path,
    source: Any,
    rows: np.ndarray,
    T: int,
    classes: dict[str, list[str]],
    waves: int,
    ecg: np.ndarray | None = None,
) -> Scanned:
    """Reads rows of a data source, and keeps their signals if `ecg` [len(rows), T, 12] is given.
    `waves` is T where they have segments, else 0."""
    n = len(rows)
    labels = np.zeros((n, sum(map(len, classes.values()))), bool)
    found = Scanned(
        np.zeros(n, np.int32),
        np.zeros((n, 32), np.uint8),
        np.zeros((n, len(LEADS)), bool),
        np.full((n, 2), np.nan, np.float32),
        np.full(n, np.nan),
        labels,
        np.zeros((n, waves, len(LEADS)), np.uint8),
        np.zeros((n, waves, len(LEADS)), bool),
        *([], [], []),
    )
    chunks = (read(source, rows[i : i + CHUNK]) for i in range(0, n, CHUNK))
    for i, example in enumerate(itertools.chain.from_iterable(chunks)):
        signal = np.zeros((T, len(LEADS)), np.int16) if ecg is None else ecg[i]
        cut(example["ecg"], signal)
        found.length[i] = min(len(example["ecg"]), T)
        found.signal_sha256[i] = digest(signal)
        found.lead_mask[i] = example["lead_mask"]
        found.person[i] = _person(example)
        for name in ("segments", "segments_mask") if waves else ():
            cut(example[name], getattr(found, name)[i])
        found.recorded[i] = example.get("recorded", np.nan)
        for task, y in zip(classes, _columns(labels, classes), strict=True):
            y[i] = _labels(path, example, task, y.shape[1])
        for name in ("record_id", "patient_id", "report"):
            getattr(found, name).append(example[name].decode())
    return found


def _person(example: dict[str, Any]) -> tuple[float, float]:
    """Age and sex. PTB-XL gives an age of 300 to whom is above 89."""
    age, sex = float(example.get("age", np.nan)), float(example.get("sex", -1))
    return min(age, 90.0) if age >= 0 else np.nan, sex if sex >= 0 else np.nan


def _columns(labels: np.ndarray, classes: dict[str, list[str]]) -> list[np.ndarray]:
    """Each task's columns of the labels of all tasks."""
    ends = np.cumsum([len(names) for names in classes.values()])
    return np.split(labels, ends[:-1], axis=1) if classes else []


def check_hosts(fields: dict[str, Any]) -> None:
    """Raises a UserError, on all processes, if `fields` of the records differ between them."""
    hosts.check_same("records", fields, COPY)


def _open(data_dir: str | Path, dataset: str, rate: int, split: str) -> tuple[Path, Any]:
    import tensorflow_datasets as tfds

    path = folder(data_dir, dataset, rate)
    try:
        builder = tfds.builder_from_directory(path)
        metadata = builder.info.metadata
        said = None if metadata is None else dict(metadata)
        _ = builder.info.features, [part.filepaths for part in builder.info.splits.values()]
    except Exception as error:  # TFDS, protobuf and JSON each raise their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise sealed.damaged(path, reason) from None
    if not isinstance(said, dict):
        raise sealed.damaged(path, "metadata.json holds no object")
    if split not in builder.info.splits:
        raise UserError(f"{path} has no split {split!r}: it has {', '.join(builder.info.splits)}")
    return path, builder


def _check_metadata(path: Path, metadata: dict, rate: int) -> None:
    expected = {"units": "uV", "rate": rate, "leads": list(LEADS)}
    for key, value in expected.items():
        found = metadata.get(key)
        if (list(found) if isinstance(found, list | tuple) else found) != value:
            raise UserError(
                f"{path}/metadata.json: {key} is {json.dumps(found)}, needed is "
                f"{json.dumps(value)}: prepare the dataset again with this project's builder"
            )
    for key in ("classes", "signals"):
        if metadata.get(key) in (None, ""):
            raise UserError(f"{path}/metadata.json names no {key}: prepare the dataset again")


def _check_seconds(path: Path, features: Any, seconds: float) -> None:
    """Labels of windows say what is annotated somewhere in all of it: a part would have labels of
    beats that are not in it. Such records hold where each is, as `beat_sample`."""
    placed = [name for name in features if name.endswith("_sample")]
    if placed and seconds < WINDOW:
        raise UserError(
            f"{path}: its labels are of what is annotated ({placed[0]}) anywhere in windows of "
            f"{WINDOW:g} s, and {seconds:g} s of each would be read: set "
            f"--config.seconds={WINDOW:g}"
        )


def _labels(path: Path, example: dict, task: str, K: int) -> np.ndarray:
    y = np.asarray(example["labels"].get(task, ()))
    if y.shape != (K,):
        raise UserError(
            f"{path}: task {task!r} has label columns of shape {y.shape} for {K} class names: "
            "prepare the dataset again"
        )
    return y.astype(bool)


def check_disjoint(*splits: Records) -> None:
    """Raises a UserError if a patient appears in two of the splits."""
    for i, a in enumerate(splits):
        for b in splits[i + 1 :]:
            shared = sorted(set(a.patient_id) & set(b.patient_id))
            if a.dataset == b.dataset and shared:
                raise UserError(
                    f"{a.dataset}: {len(shared)} patients are in both {a.split} and {b.split} "
                    f"({', '.join(shared[:5])}{', ...' if len(shared) > 5 else ''}): "
                    "split the records by patient"
                )
