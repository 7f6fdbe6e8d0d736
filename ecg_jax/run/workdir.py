"""A run's folder: config.json says whose it is."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ecg_jax import Config
from ecg_jax.errors import UserError
from ecg_jax.run import config as config_lib
from ecg_jax.run.experiment import Experiment, report_texts
from ecg_jax.run.provenance import numerics, provenance, software
from ecg_jax.runtime import hosts, parallel, storage
from ecg_jax.runtime.files import write_whole

# what may differ when a run goes on: where things lie and how often they are reported
FREE = {
    "data_dir",
    "build",
    "stream",
    "log_every",
    "checkpoint_seconds",
    "model.convolution",
    "model.remat",
    "parallel.loss",
    "parallel.shard_optimizer",
}


# What may differ in a run that goes on with another one's training. Where that one began, its state
# says.
EXTENDED = ("epochs is ", "extend is ", "init is ")


def _free(name: str, evaluating: bool) -> bool:
    """What is evaluated may change as well; while training, not what chooses the checkpoint."""
    if evaluating:
        return name in FREE or name == "dataset" or name.startswith("evaluate.")
    chooses = ("evaluate.tasks", "evaluate.select", "evaluate.prompts", "evaluate.neighbours")
    return name in FREE or (name.startswith("evaluate.") and name not in chooses)


def check_hosts(config: Config) -> None:
    """Raises a UserError if the processes of a run differ in config or software."""
    fields = config_lib.flatten(config_lib.to_json(config))
    fields.pop("data_dir")  # each may have its own copy: the records are compared
    advice = "start all of them with one command"
    hosts.check_same("configurations", fields, advice)
    hosts.check_same("software", config_lib.flatten(software()), advice + " and one installation")
    hosts.check_same(
        "numerics", numerics(config, parallel.platform()), advice + " and one environment"
    )


def claim(folder: Path, experiment: Experiment) -> None:
    """Writes config.json, or checks that the one there is of this config and these data.

    Raises:
      UserError: the folder holds another run, or is not one folder for all processes.
    """
    splits = fingerprints(experiment)  # several hosts read and exchange records for it
    hosts.first_alone(lambda: _claim(folder, experiment, splits))
    path = folder / "config.json"
    found = hashlib.sha256(path.read_bytes()).hexdigest() if storage.exists(path) else "missing"
    advice = "--workdir must be one folder, on a file system that all hosts share"
    hosts.check_same("workdirs", {"config.json": found}, advice)


def _claim(folder: Path, experiment: Experiment, splits: dict[str, str]) -> None:
    config = config_lib.to_json(experiment.config)
    path = folder / "config.json"
    if storage.exists(path):
        if differ := _unlike(experiment, folder, splits):
            more = ""
            if all(line.startswith(EXTENDED) for line in differ):
                more = f" (--config.extend={folder} there goes on with this one)"
            raise UserError(
                f"{folder} holds another run: {_told(differ)}: choose another --workdir{more}"
            )
        return
    if storage.exists(folder / "checkpoints"):
        raise UserError(f"{folder} has checkpoints but no config.json: choose another --workdir")
    those = (experiment.train, experiment.validation, experiment.test)
    details = {"config": config, "splits": splits, "leads": experiment.train.leads}
    details |= {"records": {split.split: len(split) for split in those}}
    details |= provenance(experiment)
    write_json(path, details)


def _unlike(experiment: Experiment, folder: Path, splits: dict[str, str]) -> list[str]:
    """In what a folder's run differs from this config, these data and this machine."""
    _, saved = read(folder)
    differ = differences(experiment, saved, evaluating=False)
    differ += changes(experiment, saved, splits) + _devices(experiment, saved)
    return differ + _numerics(experiment, saved)


def _told(differ: list[str]) -> str:
    return f"{'; '.join(differ[:4])}{'; ...' if len(differ) > 4 else ''}"


def check_extends(experiment: Experiment, folder: Path) -> None:
    """Raises a UserError unless the run in `folder` is this config's, with fewer epochs."""
    splits = fingerprints(experiment)

    def check() -> None:
        epochs, more = read(folder)[0].epochs, experiment.config.epochs
        differ = _unlike(experiment, folder, splits)
        if differ := [line for line in differ if not line.startswith(EXTENDED)]:
            raise UserError(f"{folder} holds another run: {_told(differ)}")
        if more <= epochs:
            raise UserError(f"{folder} has epochs={epochs}: raise --config.epochs={more}")

    hosts.together(check)


def differences(experiment: Experiment, saved: dict[str, Any], *, evaluating: bool) -> list[str]:
    """Fields in which a run's config and today's differ, of those that must not."""
    ours = config_lib.flatten(config_lib.to_json(experiment.config))
    theirs = config_lib.flatten(config_lib.to_json(config_lib.from_json(saved["config"])))
    decided = {"model.dtype"}  # what "auto" became is compared in its place: `_numerics`
    return [
        f"{k} is {theirs.get(k)!r} there and {ours.get(k)!r} here"
        for k in sorted((ours | theirs).keys() - decided)
        if ours.get(k) != theirs.get(k) and not _free(k, evaluating)
    ]


# How a run is started so that it computes as it did.
OPTIONS = {
    "dtype": "--config.model.dtype={}",
    "convolution": "--config.model.convolution={}",
    "random": "JAX_DEFAULT_PRNG_IMPL={}",
    "random_partitionable": "JAX_THREEFRY_PARTITIONABLE={}",
    "x64": "JAX_ENABLE_X64={}",
    "matmul_precision": "JAX_DEFAULT_MATMUL_PRECISION={}",
    "seed_offset": "JAX_RANDOM_SEED_OFFSET={}",
    "dtype_promotion": "JAX_NUMPY_DTYPE_PROMOTION={}",
    "xla_flags": "XLA_FLAGS='{}'",
    "libtpu_flags": "LIBTPU_INIT_ARGS='{}'",
    "tf32_override": "NVIDIA_TF32_OVERRIDE={}",
}
# What the random control of an evaluation and its draws depend on, besides.
DRAWS = ("random", "random_partitionable", "x64", "seed_offset")


def draws(experiment: Experiment, saved: dict[str, Any]) -> list[str]:
    """Of `_numerics`: what an evaluation draws by. The devices may be others."""
    return [line for line in _numerics(experiment, saved) if line.split(" ", 1)[0] in DRAWS]


def _numerics(experiment: Experiment, saved: dict[str, Any]) -> list[str]:
    """What the machine or its environment would decide otherwise than when the run began. A form of
    the convolution that the config names is free: it gives the same figures to rounding."""
    config = experiment.config
    before = saved.get("numerics") or _earlier_numerics(saved)
    now = numerics(config, experiment.method.platform)
    if config.model.convolution != "auto" or before.get("convolution") in config_lib.GONE:
        before = before | {"convolution": now["convolution"]}
    return [
        f"{name} was {before[name]} there and is {now[name]} here (go on as before with "
        f"{OPTIONS[name].format(before[name])})"
        for name in now
        if name in before and before[name] != now[name]
    ]


def _earlier_numerics(saved: dict[str, Any]) -> dict[str, Any]:
    """Of a run that began before they were recorded, as far as it is known."""
    model = saved["config"]["model"]
    dtype = model.get("dtype", "float32")
    if dtype == "auto":
        dtype = "float32" if saved["device"].split()[-1] == "cpu" else "bfloat16"
    return {"dtype": dtype}


def fingerprints(experiment: Experiment) -> dict[str, str]:
    """sha256 of each split's records, and of the texts that their reports become."""
    splits = (experiment.train, experiment.validation, experiment.test)
    hashes = {f"{split.split} records": split.fingerprint() for split in splits}
    if experiment.tower is None:
        return hashes
    texts, rows = report_texts(experiment.config, experiment.train)
    digest = hashlib.sha256("\0".join(texts).encode() + rows.tobytes())
    return {**hashes, "report texts": digest.hexdigest()}


def changes(experiment: Experiment, saved: dict[str, Any], now: dict[str, str]) -> list[str]:
    """What is no longer as it was when a run began: records, texts (by their fingerprints `now`),
    or the text tower."""
    before = saved["splits"]
    differ = [f"the {name} differ" for name in now if before.get(name) != now[name]]
    tower = experiment.described_tower()
    return differ + [
        f"the text tower's {name} differs"
        for name in ("sha256", "vocab_sha256", "cased", "pooling")
        if saved["text_tower"].get(name) != tower.get(name)
    ]


def _devices(experiment: Experiment, saved: dict[str, Any]) -> list[str]:
    """BatchNorm's statistics per device depend on how many devices there are."""
    now, before = experiment.mesh.devices.size, int(saved["device"].split()[0])
    if experiment.config.parallel.batch_norm != "device" or now == before:
        return []
    return [f"parallel.batch_norm is 'device', on {before} devices there and {now} here"]


def read(folder: Path) -> tuple[Config, dict[str, Any]]:
    """A run's config, and all of its config.json.

    Raises:
      UserError: the folder holds no run.
    """
    path = folder / "config.json"
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        _ = saved["splits"], saved["text_tower"]
        return config_lib.from_json(saved["config"]), saved
    except FileNotFoundError:
        raise UserError(f"{folder} holds no run: it has no config.json") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): restore it from a copy") from error


def saved_shards(folder: Path) -> int | None:
    """The virtual shards of the run that a folder holds, if it holds one. Raises as `read`."""
    there = storage.exists(folder / "config.json")
    return hosts.from_first(hosts.together(lambda: read(folder)[0].shards if there else None))


def write_json(path: Path, tree: Any) -> None:
    """Raises a UserError, and leaves what was there, if the file cannot be written."""
    write_whole(path, (json.dumps(tree, indent=2) + "\n").encode())
