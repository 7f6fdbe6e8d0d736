"""A streamed split gives the resident split's batches and the resident run's parameters."""

import itertools
import json
import os
import shutil
import signal
import threading
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ecg_jax import train
from ecg_jax.data import records, resident
from ecg_jax.data.stream import AHEAD, Stream
from ecg_jax.errors import UserError
from ecg_jax.methods import Plan
from ecg_jax.models.resnet1d import STAGES
from ecg_jax.run.experiment import open_experiment
from ecg_jax.runtime import parallel
from ecg_jax.runtime.arrays import digests
from ecg_jax.runtime.checkpoint import Checkpoints
from ecg_jax.text.tower import TextTower
from ecg_jax.training import feed, optim
from ecg_jax.training.state import init
from ecg_jax.training.step import make_dispatch

SHARDS, BATCH = 8, 16


def mesh(devices):
    return parallel.make_mesh(jax.devices()[:devices])


def load(folder, seconds=10.0, stored=False, split="train"):
    return records.load(folder, "simulated", 100, split, seconds=seconds, stored=stored)


def stream_of(split, devices=8, seed=3, shards=SHARDS):
    text = np.arange(len(split), dtype=np.int32)
    options = {"shards": shards, "batch_size": BATCH, "seed": seed}
    return Stream(mesh(devices), split.ecg, split.lead_mask, text, **options)


@pytest.mark.parametrize("seconds", [4.0, 12.0])  # the records have 10: cut, and padded
def test_a_split_on_disk_is_the_one_in_memory(simulated, seconds):
    memory, disk = load(simulated, seconds), load(simulated, seconds, stored=True)
    assert disk.ecg.shape == memory.ecg.shape and disk.ecg.dtype == memory.ecg.dtype
    np.testing.assert_array_equal(disk.length, memory.length)
    rows = np.array([5, 0, 5, len(memory) - 1])
    np.testing.assert_array_equal(disk.ecg[rows], memory.ecg[rows])
    np.testing.assert_array_equal(disk.take(rows).ecg[np.array([3, 1])], memory.ecg[rows[[3, 1]]])
    assert disk.take(rows).report == memory.take(rows).report
    assert disk.fingerprint() == memory.fingerprint()
    assert disk.take(rows).fingerprint() == memory.take(rows).fingerprint()


@pytest.mark.parametrize(("devices", "seed", "seconds"), [(1, 0, 4.0), (2, 1, 12.0), (8, 7, 10.0)])
def test_the_batches_of_the_resident_split(simulated, devices, seed, seconds):
    memory, disk = load(simulated, seconds), load(simulated, seconds, stored=True)
    stream = stream_of(disk, devices, seed)
    steps = resident.steps_per_epoch(len(memory), BATCH, SHARDS)
    assert stream.steps == steps
    text = np.arange(len(memory), dtype=np.int32)
    split = resident.put(
        mesh(devices), memory.ecg, memory.lead_mask, text, shards=SHARDS, seed=seed
    )
    draw = jax.jit(resident.draw, static_argnums=(1, 3, 4))
    start, stop = steps - 2, 2 * steps + 1  # the ends of two epochs lie between
    streamed = list(stream.batches(start, stop))
    assert len(streamed) == stop - start
    for step, ours in enumerate(streamed, start):
        theirs = draw(split, seed, jnp.int32(step), steps, BATCH)
        assert ours.ecg.sharding == parallel.by_record(mesh(devices))
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


class Recorded:
    """An array that notes which of its rows were read."""

    def __init__(self, array):
        self.array, self.shape, self.read, self.changed = array, array.shape, [], threading.Event()

    def __len__(self):
        return len(self.array)

    def __getitem__(self, rows):
        self.read.append(rows)
        self.changed.set()
        return self.array[rows]


def test_a_batch_reads_every_row_once_and_a_device_only_its_own(simulated):
    split = load(simulated)
    source = Recorded(split.ecg)
    stream = stream_of(split.take(np.arange(len(split))), devices=4)
    stream._arrays = (source, *stream._arrays[1:])
    stream.batch(9)
    assert [len(rows) for rows in source.read] == [BATCH // 4] * 4
    assert sorted(np.concatenate(source.read)) == sorted(stream.rows(9))


def test_batches_are_read_ahead_and_no_further(simulated):
    split = load(simulated)
    stream = stream_of(split, devices=1)
    source = Recorded(split.ecg)
    stream._arrays = (source, *stream._arrays[1:])
    batches = stream.batches(0, 40)
    next(batches)
    while len(source.read) < 1 + AHEAD:
        source.changed.clear()
        assert len(source.read) >= 1 + AHEAD or source.changed.wait(60)
    batches.close()
    assert len(source.read) == 1 + AHEAD


def test_what_fails_while_reading_reaches_the_loop(simulated):
    split = load(simulated)
    stream = stream_of(split)

    class Broken(Recorded):
        def __getitem__(self, rows):
            raise OSError("the disk is gone")

    stream._arrays = (Broken(split.ecg), *stream._arrays[1:])
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream.batches(0, 4))


@pytest.mark.parametrize("damage", ["gone", "cut", "empty"])
def test_a_damaged_shard_is_named(simulated, tmp_path, damage):
    folder = tmp_path / "data"
    shutil.copytree(simulated, folder)
    disk = load(folder, stored=True)
    (shard,) = folder.rglob("simulated-train.array_record*")
    if damage == "gone":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[: 50_000 if damage == "cut" else 0])
    reads = [lambda: load(folder), lambda: load(folder, stored=True)]
    if damage != "gone":
        reads.append(lambda: disk.ecg[:9])
    for read in reads:
        with pytest.raises(UserError, match=r"shard of split 'train' is missing or damaged"):
            read()


def test_bad_sizes(simulated):
    split = load(simulated, stored=True)
    with pytest.raises(UserError, match="8 virtual shards do not divide over 3 devices"):
        stream_of(split, devices=3)
    with pytest.raises(UserError, match="16 does not divide over 32 virtual shards"):
        stream_of(split, shards=32)


def restored(experiment, folder):
    like = init(experiment, optim.build(experiment.config, 1), Plan(1, 1))
    return Checkpoints(folder / "checkpoints" / "last").restore(like)


def uninterrupted(config):
    """The state and the losses of a resident run's updates, without the loop around them."""
    experiment = open_experiment(config)
    data, plan, steps = feed.load(experiment)
    optimizer = optim.build(config, steps)
    state, losses = init(experiment, optimizer, plan), []
    dispatch = make_dispatch(config, experiment.method, optimizer, steps)
    for _ in range(config.epochs * steps):
        state, metrics = dispatch(state, data, 1)
        losses.append(float(metrics["loss"][0]))
    return experiment, state, losses


def stop_after(monkeypatch, dispatches):
    make = train.make_dispatch

    def counting(*args):
        dispatch, count = make(*args), itertools.count(1)

        def run(*args):
            if next(count) == dispatches:
                os.kill(os.getpid(), signal.SIGTERM)
            return dispatch(*args)

        return run

    monkeypatch.setattr(train, "make_dispatch", counting)


@pytest.fixture
def quick(small, monkeypatch):
    """`small` on two devices with two residual blocks, and vectors in place of embeddings: the
    updates are the real ones, and compile in seconds."""
    make = parallel.make_mesh
    monkeypatch.setattr(parallel, "make_mesh", lambda: make(jax.devices()[:2]))
    monkeypatch.setitem(STAGES, 18, (1, 1))

    def embed(self, texts, *_, **__):
        seeds = [zlib.crc32(text.encode()) for text in texts]
        vectors = [np.random.default_rng(seed).normal(size=self.width) for seed in seeds]
        return np.array(vectors, np.float32)

    monkeypatch.setattr(TextTower, "embed", embed)
    small.evaluate.draws = 5
    return small


@pytest.mark.usefixtures("as_shipped")
def test_a_resident_run_goes_on_as_a_stream_within_an_epoch_bit_for_bit(
    quick, tmp_path, monkeypatch, capsys
):
    before = signal.getsignal(signal.SIGTERM)
    experiment, state, losses = uninterrupted(quick)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        train.train(quick, tmp_path / "run")
    assert "stopped by SIGTERM at step 3" in capsys.readouterr().out
    quick.stream = True
    train.train(quick, tmp_path / "run")
    assert "resumed at step 3" in capsys.readouterr().out
    signal.signal(signal.SIGTERM, before)
    rows = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert [row["loss"] for row in rows if "loss" in row] == losses
    step, streamed, _ = restored(experiment, tmp_path / "run")
    assert step == len(losses) == int(state.step)
    assert digests(streamed) == digests(state)


@pytest.mark.parametrize(
    ("device", "host", "message"),
    [
        (
            500_000,
            10**12,
            r"simulated train: .* GB of signals for each of 8 devices, and 0.0004",
        ),
        (None, 10_000_000, r"simulated train: its signals take .* GB .*, and 0.01 GB is free"),
    ],
)
def test_a_split_that_does_not_fit_names_the_stream(
    small, tmp_path, monkeypatch, device, host, message
):
    monkeypatch.setattr(resident, "device_memory", lambda _: device)
    monkeypatch.setattr(resident, "host_memory", lambda: host)
    with pytest.raises(UserError, match=message + ".*--config.stream=True"):
        train.train(small, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    small.stream = True
    train.check_memory(open_experiment(small))


def test_memory_figures():
    assert resident.host_memory() > 10**7
    assert resident.device_memory(jax.devices()[0]) is None


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 8 << 30),
        ({"memory.max": "max", "memory.current": "5", "memory.stat": "anon 5"}, 8 << 30),
        (
            {"memory.max": "3000", "memory.current": "900", "memory.stat": "inactive_file 400"},
            2500,
        ),
        (
            {
                "memory/memory.limit_in_bytes": "3000",
                "memory/memory.usage_in_bytes": "900",
                "memory/memory.stat": "cache 1\ninactive_file 0",
            },
            2100,
        ),
    ],
    ids=["none", "no limit", "version 2", "version 1"],
)
def test_a_containers_limit_counts(tmp_path, files, free):
    proc = {"proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n"}
    for name, text in (proc | {f"sys/fs/cgroup/{k}": v for k, v in files.items()}).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert resident.host_memory(tmp_path) == free
