"""Readers of a run's folder and of exported models."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from campaign.mutations import Mutation
from campaign.reader import ANY, Reader, Result, anything, digest, nothing


def small_config(data: str = "data") -> Any:
    from configs import etp

    config = etp.get_config("demo")
    config.update(data_dir=data, build=False, batch_size=64, seconds=2.5)
    config.model.update(width=4, dim=8, dtype="float32")
    return config


def write_run(folder: Path) -> None:
    from ecg_jax.run import config as config_lib

    saved = {
        "config": config_lib.to_json(small_config()),
        "splits": {"train records": "0" * 64},
        "text_tower": {"name": "minilm", "width": 384},
        "leads": ["I"],
        "device": "1 x cpu",
    }
    (folder / "config.json").write_text(json.dumps(saved, indent=2))


def read_run(folder: Path) -> Result:
    from ecg_jax.run import config as config_lib
    from ecg_jax.run import workdir

    config, _ = workdir.read(folder)
    config_lib.check(config)
    return {name: repr(value) for name, value in config_lib.flatten(config.to_dict()).items()}


def write_heads(run: Path, step: int = 1) -> None:
    from ecg_jax.evaluation import heads

    rng = np.random.default_rng(0)
    names = ("super", "form"), ("NORM", "MI", "HYP"), ("normal ecg", "infarct", "hypertrophy")
    made = []
    for task, protocol in zip(names[0], heads.PROTOCOLS, strict=True):
        arrays = {"mean": 8, "scale": 8, "kernel": (8, 3), "bias": 3}
        arrays = arrays if protocol == "linear_probe" else {"classes": (3, 8), "centre": 8}
        drawn = {name: rng.normal(size=shape).astype("f4") for name, shape in arrays.items()}
        options = {"pooling": "mean", "l2_normalize": False} if "mean" in arrays else {}
        numbers = ([5, 4, 3], [0.1, 0.2, None], [1.0, 2.0, None], [0.5, 0.0, None])
        of = ("simulated", task, protocol, *names[1:], "", 20)
        made.append(heads.Head(*of, *numbers, options, drawn))
    words = {"normal": rng.normal(size=8).astype("f4")}
    of_words = heads.Words("simulated", "super", "NORM", 20, 2, 1.0, 0.0, "", words)
    heads.write(heads.Heads(step, made, of_words), run / heads.FILE)


def of_heads(heads: Any) -> Result:
    """What is said of each head, and its arrays."""
    from ecg_jax.evaluation import heads as heads_lib

    if heads is None:
        return {"heads": "none"}
    said, arrays = heads_lib.described(heads)
    return {"heads": repr(said)} | {f"heads {k}": digest(np.asarray(v)) for k, v in arrays.items()}


def write_results(folder: Path) -> None:
    from ecg_jax.evaluation.figures import predictions, results

    rng = np.random.default_rng(0)
    row = dict.fromkeys(results.COLUMNS[:7], "x") | dict.fromkeys(results.COLUMNS[7:-1], 0.5)
    extras = {"n": 20, "rule": "corrected", "seed": 0, "step": 5, "chance": 0.5, "note": ""}
    results.write([row | extras | {"label": f"c{i}"} for i in range(4)], folder / "results.json")
    names = np.array([f"r{i}" for i in range(20)])
    y, score = rng.random((20, 3)) > 0.5, rng.random((20, 3)).astype(np.float32)
    fields = ("super", "simulated", "knn", "trained", "corrected", None, "", ["a", "b", "c"])
    made = predictions.Predictions(*fields, names, names, y, score, np.zeros(3))
    predictions.write([made], folder / "predictions.npz")
    write_heads(folder)
    lines = [json.dumps({"step": i, "loss": 1 / i}) for i in range(1, 9)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def read_results(folder: Path) -> Result:
    from ecg_jax.evaluation import heads
    from ecg_jax.evaluation.figures import predictions, results, tables
    from ecg_jax.runtime import files

    rows = results.read(folder / "results.json")
    tables.table(rows) if rows else None
    found = {"results": repr(rows)}
    for p in predictions.read(folder / "predictions.npz"):
        found |= {f"{p.task} {name}": digest(value) for name, value in p._asdict().items()}
    found |= of_heads(heads.read(folder / heads.FILE))
    found["metrics"] = repr(files.read_lines(folder / "metrics.jsonl"))
    return found


def of_results(mutation: Mutation) -> tuple[int, Callable[[str], bool]]:
    """Arrays have digests; rows of text are as they are read. A file that is gone is none yet."""
    gone = mutation.kind in ("drop", "rename")
    return ANY, lambda item: gone or not item.startswith(("super", "heads"))


def _state(step: int = 0) -> dict[str, Any]:
    import jax.numpy as jnp

    values = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    return {"a": jnp.asarray(values + step), "b": jnp.arange(4) + step}


def write_checkpoints(folder: Path) -> None:
    from ecg_jax.runtime.checkpoint import Checkpoints

    saves = Checkpoints(folder / "last", keep=2)
    for step in (3, 5):
        saves.save(step, _state(step), {"best": 0.5})
    saves.close()


def read_checkpoints(folder: Path) -> Result:
    """The newest that is whole: either of the two as it was saved, or none."""
    from ecg_jax.runtime.checkpoint import Checkpoints

    restored = Checkpoints(folder / "last", keep=2).restore(_state())
    if restored is None:
        return {"state": "none"}
    step, tree, notes = restored
    for name, array in _state(step).items():
        np.testing.assert_array_equal(tree[name], array)
    return {"state": str(step), "notes": repr(notes)}


def of_checkpoints(_: Mutation) -> tuple[int, Callable[[str], bool]]:
    return ANY, lambda item: item == "state"


def write_exported(folder: Path) -> None:
    from ecg_jax import export

    run = folder.parent / "run"
    write_trained(run)
    export.export(run, folder)
    shutil.rmtree(run)


def write_trained(run: Path) -> None:
    """A run's folder with a best checkpoint."""
    import jax

    from ecg_jax import evaluate
    from ecg_jax.methods import build
    from ecg_jax.run.experiment import blank
    from ecg_jax.runtime.checkpoint import Checkpoints

    config = small_config()
    shapes = jax.eval_shape(build(config).init, jax.random.key(0), blank(250, 384))
    start = jax.tree.map(lambda leaf: jax.numpy.ones(leaf.shape, leaf.dtype), shapes)
    run.mkdir()
    write_run(run)
    saved = json.loads((run / "config.json").read_text())
    saved["text_tower"] |= {"stand_in": True, "note": "x", "sha256": "0", "pooling": "mean"}
    (run / "config.json").write_text(json.dumps(saved))
    best = Checkpoints(run / "checkpoints" / "best", keep=1)
    best.save(1, evaluate.frozen(*start), {"select": 0.5})
    best.close()
    write_heads(run)


def read_exported(folder: Path) -> Result:
    from flax import traverse_util

    from ecg_jax import export

    model = export.load_exported(folder)
    found = {name: repr(value) for name, value in model.config.items()}
    leaves = traverse_util.flatten_dict(model.variables, sep="/")
    found |= {name: digest(np.asarray(leaf)) for name, leaf in leaves.items()}
    return found | of_heads(model.heads)


def readers() -> list[Reader]:
    return [
        Reader("a run's config", write_run, read_run, anything),
        Reader("a run's results", write_results, read_results, of_results),
        Reader("checkpoints", write_checkpoints, read_checkpoints, of_checkpoints),
        Reader("an exported model", write_exported, read_exported, nothing, skip=4),
    ]
