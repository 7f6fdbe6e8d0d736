"""Figures of a few training steps, which must not depend on devices or processes.

As a program (`agreement.py DATA_DIR OUT FLAGS`) it is one of several processes; the first one
writes the figures to OUT.
"""

import argparse
import contextlib
import functools
import importlib
import itertools
import json
import math
import os
import shutil
import signal
import time
import zlib
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from configs import etp
from ecg_jax.errors import UserError
from ecg_jax.losses import contrastive
from ecg_jax.models import batch_norm, resnet1d, s4, wav2vec2
from ecg_jax.run.experiment import Experiment, open_experiment
from ecg_jax.runtime import hosts, parallel
from ecg_jax.training import feed
from ecg_jax.training.state import init
from ecg_jax.training.step import make_dispatch

STEPS = 5
STARTS = {"smooth": 2, "relu": 6}  # of each network: one agrees always, the other mostly
SHALLOW = {18: (1, 1)}  # the stages of a network that compiles in little time
EVERY_BLOCK = {18: (2, 2)}  # with a shortcut and without, after the stem and within
CONFIGS = Path(__file__).parent.parent / "configs"
# Four of one method's configs are options of the fifth.
OPTIONS = ("w2v", "cmsc", "w2v_rlm", "cmsc_rlm")
METHODS = sorted(
    path.stem for path in CONFIGS.glob("*.py") if path.stem not in ("common", *OPTIONS)
)
# Options that change what is computed: name -> (method, fields of config.model).
VARIANTS = {
    "moco_v3": ("moco", {"version": 3}),
    "swav_queue": ("swav", {"queue": 32, "queue_from": 0.01}),
    "cmc_core": ("cmc", {"graph": "core"}),
    "clocs_cmsmlc": ("clocs", {"kind": "cmsmlc"}),
}
IN_PROCESSES = [*METHODS, "moco_v3", "swav_queue"]
OWN = {
    "moco": {"queue": 32},
    "swav": {"prototypes": 8},
    "pirl": {"negatives": 8, "pieces": 4},
    "cpc": {"context": 3, "times": 2, "steps": 2},
    "beat_ssl": {"beats": 2},
    "astcl": {"dim": 64, "hidden": 64},  # its bottleneck is a quarter of that
}
# Of the losses that do not end at 0; of noise, no hidden token can be told from 100 others.
LEAST = {"simsiam": -1.0, "w2v_cmsc": math.log(101)}
BEGINS = {"moco": 2}  # the first update whose loss counts: the queue is full


def shallow(setattr):
    """Two blocks instead of eight: what is tested of every method takes a third of the time."""
    setattr(resnet1d, "STAGES", SHALLOW)
    setattr(wav2vec2, "SIZES", {"small": wav2vec2.Size(1, 32, 2, 32)})
    setattr(wav2vec2, "TOKENS", {"small": 8})
    setattr(s4, "SIZES", {"small": s4.Size(1, 16, 2)})


def narrow(config, **fields):
    """Few channels and units; a width is the ResNet's."""
    width = {"width": 8} if config.model.encoder == "resnet1d" else {}
    config.model.update(width | {"hidden": 16, "dim": 8} | fields)


def tiny(name, data_dir):
    """A method's own config, or a variant's, on simulated records, with a tiny network."""
    method, fields = VARIANTS.get(name, (name, {}))
    module = importlib.import_module(f"configs.{method}")
    config = module.get_config("demo")
    config.update(data_dir=str(data_dir), build=False, batch_size=16, shards=16, seconds=5.0)
    narrow(config, convolution="plain")
    for chain in ("augment", "augment_second"):  # each step takes time to compile
        config[chain] = config[chain][:2]
    config.optimizer.update(learning_rate=3e-3, schedule="constant")
    config.evaluate.update(tasks=("super",), select="super", draws=20)
    config.model.update(OWN.get(method, {}) | fields)
    return config


def small(data_dir):
    config = etp.get_config("demo")
    config.update(data_dir=str(data_dir), build=False, epochs=3, batch_size=64)
    config.seconds = 2.5
    config.model.update(width=8, dim=32)
    config.evaluate.update(tasks=("super",), select="super", draws=20)
    return config


def training(config, devices=None, starts=1, steps=STEPS):
    """Of every start: losses of the steps, the state after the first and what the last has made
    of parameters and statistics.

    With momentum, whose first moment is the gradient. (Adam divides a gradient by its own size,
    so that rounding errors of those near zero become steps of full length.) With plain
    convolutions, whose rounding errors are a quarter of Winograd's, and few records: fewer ReLUs
    to change sign, see `test_hosts`.
    """
    config.model.convolution = "plain"
    config.batch_size = config.shards = 16
    whole = open_experiment(config)
    experiment = Experiment(config, parallel.make_mesh(devices), whole.method, whole.tower)
    data, plan, per_epoch = feed.load(experiment)
    optimizer = optax.sgd(1e-3, momentum=0.9)
    dispatch = make_dispatch(config, whole.method, optimizer, per_epoch)
    zero = init(experiment, optimizer, plan)
    figures = {}
    for start in range(starts):
        state, losses = moved(zero, start), []
        for step in range(steps):
            state, metrics = dispatch(state, data, 1)
            losses.append(float(metrics["loss"][0]))
            if step == 0:
                figures[start] = flat("first", state)
        figures[start] |= flat("last", (state.params, state.method)) | {"losses": losses}
    return figures


def moved(state, start):
    """A copy of a state with other parameters."""

    def copy(x):
        return jax.make_array_from_callback(x.shape, x.sharding, lambda i: hosts.whole(x)[i])

    def move(path, x):
        name = jax.tree_util.keystr(path)  # so that each is alike whatever the others are
        rng = np.random.default_rng([start, zlib.crc32(name.encode())])
        y = (hosts.whole(x) * rng.normal(1, 0.1, x.shape)).astype(x.dtype)
        return jax.make_array_from_callback(x.shape, x.sharding, lambda i: y[i])

    return jax.tree.map(copy, state).replace(
        params=jax.tree_util.tree_map_with_path(move, state.params)
    )


def flat(name, state):
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {name + jax.tree_util.keystr(path): hosts.whole(leaf) for path, leaf in leaves}


@contextlib.contextmanager
def network(name):
    """The network with fewer layers ("relu"), or with each kind of block but without the jumps in
    its gradients ("smooth"): SiLU for ReLU, the mean of two for the maximum of three."""

    def mean_pool(x):
        return nn.avg_pool(nn.silu(x), (2,), (2,), "SAME")

    def silu_pool(branch, **options):
        return batch_norm.activate(mean_pool, branch, **options)

    def silu_mean(*branches, residual=None, platform):
        options = {"residual": residual, "train": True, "platform": platform}
        return batch_norm.activate(nn.silu, *branches, **options).mean(axis=1, dtype=jnp.float32)

    with contextlib.ExitStack() as stack:
        if name == "smooth":
            stack.enter_context(mock.patch.object(resnet1d, "STAGES", EVERY_BLOCK))
            stack.enter_context(mock.patch.object(nn, "relu", nn.silu))
            stack.enter_context(mock.patch.object(resnet1d, "relu", nn.silu))
            stack.enter_context(mock.patch.object(resnet1d, "relu_pool", silu_pool))
            stack.enter_context(mock.patch.object(resnet1d, "relu_mean", silu_mean))
        else:
            stack.enter_context(mock.patch.object(resnet1d, "STAGES", SHALLOW))
        yield


@functools.cache
def on_devices(data_dir, devices, name):
    """`training` of `small`, on so many of this process's devices."""
    with network(name):
        return training(small(data_dir), jax.devices()[:devices], STARTS[name])


def of_method(method, data_dir, devices=None):
    """`training` of a method's own config for two steps, in a small smooth network."""
    with network("smooth"), mock.patch.object(resnet1d, "STAGES", SHALLOW):
        return training(tiny(method, data_dir), devices, steps=2)[0]


def losses(devices=None):
    """Value and gradients of every loss in every form, of one fixed batch."""
    rng = np.random.default_rng(0)
    e, t = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.standard_normal((2, 32, 8)))
    mesh = parallel.make_mesh(devices)
    sharding = parallel.by_record(mesh)
    e, t = (parallel.put(x.astype(np.float32), sharding) for x in (e, t))
    group = parallel.put(np.arange(32, dtype=np.int32) // 3, sharding)
    kinds = {
        "info_nce": functools.partial(contrastive.symmetric_info_nce, temperature=0.1),
        "sigmoid": functools.partial(contrastive.sigmoid, temperature=0.1, bias=-4.0),
    }
    figures = {}
    for (name, loss), form in itertools.product(kinds.items(), contrastive.FORMS):
        of = functools.partial(loss, form=form)
        with jax.set_mesh(mesh):
            run = jax.jit(jax.value_and_grad(lambda e, t, g, of=of: of(e, t, group=g), (0, 1)))
            value, gradients = run(e, t, group)
        figures[f"{name} {form} value"] = hosts.whole(value)
        figures[f"{name} {form} gradients"] = np.stack([hosts.whole(g) for g in gradients])
    return figures


def asked():
    """The step at which each process hears that one of them has been sent SIGTERM at step 3."""
    preemption, last = hosts.Preemption(), jax.process_count() - 1
    for step in itertools.count(step=2):
        if preemption.at(step):
            return np.array(json.loads(f"[{','.join(hosts.share(str(step)))}]"))
        if step == 4 and jax.process_index() == last:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.02)


def refused(data_dir, out):
    """What each process is told of a training whose processes have different workdirs or records:
    [2] lines by what differs."""
    from ecg_jax import train

    own, found = str(jax.process_index()), {}
    other = out.parent / "records"
    if hosts.first():
        shutil.copytree(data_dir, other)
        info = next(other.rglob("dataset_info.json"))
        text = json.loads(info.read_text())
        split = next(s for s in text["splits"] if s["name"] == "train")
        split["numBytes"] = str(int(split["numBytes"]) + 1)
        info.write_text(json.dumps(text))
    folders = {"workdirs": out.parent / own, "records": out.parent / "run"}
    for what, folder in folders.items():
        config = small(other if what == "records" and hosts.first() else data_dir)
        try:
            train.train(config, folder)
            line = "not refused"
        except UserError as error:
            line = str(error)
        found[f"refused {what}"] = np.array(hosts.share(line))
    assert not folders["records"].exists()
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data_dir")
    parser.add_argument("out", type=Path)
    for field in hosts.FLAGS:
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    args = vars(parser.parse_args())
    data_dir, out = args.pop("data_dir"), args.pop("out")
    hosts.start(hosts.Address(**args))
    config = small(data_dir)
    config.parallel.update(loss="ring", shard_optimizer=True)
    figures = {"processes": jax.process_count(), "asked": asked()}
    figures |= losses()
    with network("relu"):
        figures |= refused(data_dir, out)
    for kind, starts in STARTS.items():
        with network(kind):
            for start, found in training(config, starts=starts).items():
                figures |= {f"{kind} {start} {name}": value for name, value in found.items()}
    for method in IN_PROCESSES:
        figures |= {f"{method} {k}": v for k, v in of_method(method, data_dir).items()}
    if hosts.first():
        np.savez(out, **figures)


if __name__ == "__main__":
    main()
