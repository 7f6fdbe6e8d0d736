"""What the kill campaign disturbs: programs and parts of them, each with its own beginning."""

import contextlib
import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from campaign import of_runs, of_sources, of_text
from ecg_jax.errors import UserError, run_main
from tfds_builders import prepare


class Job(NamedTuple):
    """What `begin` makes of a folder, `run` goes on with; `run` is what is disturbed.

    `kills`: of so many disturbances in a row, then it is finished and compared. `timed`: they come
    at a moment of processor time, in any thread, and not at a call of the main thread. `turns`: how
    often it is drawn, of ten.
    """

    begin: Callable[[Path], object]
    run: Callable[[Path], object]
    timed: bool = False
    kills: int = 1
    turns: int = 1


def nothing(_: Path) -> None:
    pass


def _source(folder: Path) -> None:
    of_sources.write_published(folder / "source", "ptb_xl", sums=True)


def _prepare(folder: Path, *options: str) -> None:
    given = ["ptb_xl", "--source", str(folder / "source"), "--data_dir", str(folder / "data")]
    if status := prepare.main([*given, *options]):
        raise UserError(f"prepare ended with {status}")


def _prepared_before(folder: Path) -> None:
    _source(folder)
    _prepare(folder)


def _cache(folder: Path) -> None:
    from ecg_jax.text import tower

    for text in "abcdefgh":
        path = folder / "cache" / text[:1] / f"{text}.bin"
        if tower._read_entry(path, text, 8) is None:
            tower._write_entry(path, text, of_text._vector(text))


def _embed(folder: Path) -> None:
    """All of it: the model read, texts embedded two at a time, what is cached left as it is."""
    from ecg_jax.text import tower

    texts = [f"sinus {a} {b}" for a in "abcd" for b in "efgh"]
    made = tower.load(str(folder / "model")).embed(texts, cache_dir=folder / "cache", batch_size=2)
    np.save(folder / "made.npy", made)


def _text_model(folder: Path) -> None:
    (folder / "model").mkdir()
    of_text.write_text_model(folder / "model")


def _results(folder: Path) -> None:
    of_runs.write_results(folder)


def _states(folder: Path) -> None:
    """A run of five checkpoints that goes on from the newest, as training does."""
    from ecg_jax.runtime.checkpoint import Checkpoints

    saves, like = Checkpoints(folder / "last", keep=2), of_runs._state()
    restored = saves.restore(like)
    for step in range(restored[0] + 1 if restored else 1, 6):
        saves.save(step, of_runs._state(step), {"best": step / 8})
        saves.wait()
    saves.close()
    _write_digests(folder / "digests.json", {folder / "last": like})


def _trained(folder: Path) -> None:
    of_runs.write_trained(folder / "run")


def _export(folder: Path) -> None:
    from ecg_jax import export

    if not (folder / "model" / "config.json").exists():
        export.export(folder / "run", folder / "model")


# Trainers.

SHALLOW = {18: (1, 1)}  # two residual blocks
FIELDS: dict[str, Any] = {
    "build": False,
    "epochs": 3,
    "batch_size": 32,
    "shards": 16,
    "seconds": 2.5,
    "checkpoint_seconds": 0.0,
    "model.width": 4,
    "model.hidden": 16,
    "model.dim": 8,
    "model.convolution": "plain",
    "evaluate.tasks": "super",
    "evaluate.select": "super",
    "evaluate.protocols": "knn",
    "evaluate.draws": 20,
    "evaluate.neighbours": 16,
}
MEMORIES = {  # method with the fields that make its memory small
    "EMA": ("byol", {}),
    "queue": ("moco", {"model.queue": 64}),
    "bank": ("pirl", {"model.negatives": 8, "model.pieces": 2}),
}


def _records(folder: Path) -> None:
    given = ["simulated", "--rate", "100", "--records", "200", "--data_dir", str(folder / "data")]
    assert prepare.main(given) == 0


def _train(folder: Path, memory: str) -> None:
    method, fields = MEMORIES[memory]
    options = FIELDS | {"data_dir": folder / "data"} | fields
    words = [f"--config.{name}={value}" for name, value in options.items()]
    config, run = f"--config=configs/{method}.py:demo", folder / "run"
    with _seen() as seen:
        _program("train", config, f"--workdir={run}", *words)
    _write_digests(run / "digests.json", seen)


def _trained_before(folder: Path) -> None:
    _records(folder)
    _train(folder, "EMA")


def _evaluate(folder: Path) -> None:
    protocols = "--protocols=knn,linear_probe"
    _program("evaluate", f"--workdir={folder / 'run'}", protocols, "--tasks=super,findings")


def _program(name: str, *words: str) -> None:
    """A program's `main`, as its command calls it. Raises SystemExit where it ends with a line."""
    from ecg_jax.models import resnet1d

    resnet1d.STAGES = SHALLOW
    sys.argv = [name, *words]
    try:
        run_main(importlib.import_module(f"ecg_jax.{name}").main)
    except SystemExit as end:
        if end.code:
            raise


@contextlib.contextmanager
def _seen() -> Iterator[dict[Path, Any]]:
    """Of each folder of checkpoints that is written or read meanwhile, a state like its own."""
    from ecg_jax.runtime.checkpoint import Checkpoints

    found: dict[Path, Any] = {}
    save, restore = Checkpoints.save, Checkpoints.restore

    def saved(self, step, state, notes):
        found[self.folder] = state
        return save(self, step, state, notes)

    def restored(self, like):
        found[self.folder] = like
        return restore(self, like)

    Checkpoints.save, Checkpoints.restore = saved, restored
    try:
        yield found
    finally:
        Checkpoints.save, Checkpoints.restore = save, restore


def _write_digests(path: Path, seen: dict[Path, Any]) -> None:
    """Of what each folder's newest checkpoint holds, read back: the bytes on disk are orbax's."""
    import jax

    from ecg_jax.runtime.checkpoint import Checkpoints

    said: dict[str, Any] = {}
    for folder, like in sorted(seen.items()):
        saves = Checkpoints(folder)
        restored = saves.restore(like)
        assert restored is not None
        step, tree, notes = restored
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        arrays = {
            jax.tree_util.keystr(name): hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
            for name, leaf in leaves
        }
        said[folder.name] = {"step": step, "notes": notes, "steps": saves.steps()} | arrays
    path.write_text(json.dumps(said, indent=1), encoding="utf-8")


def load() -> None:
    """Imports what the jobs do, once for all of their processes, and starts no backend."""
    for name in ("train", "evaluate", "export", "text.tower", "report.fill"):
        importlib.import_module(f"ecg_jax.{name}")
    for name in ("orbax.checkpoint", "tensorboardX", "tokenizers", "sklearn.linear_model"):
        importlib.import_module(name)
    for name in ("ptb_xl", "simulated"):
        importlib.import_module(f"tfds_builders.{name}.{name}_dataset_builder")


JOBS = {
    "prepare": Job(_source, _prepare),
    "prepare --overwrite": Job(_prepared_before, lambda folder: _prepare(folder, "--overwrite")),
    "text cache": Job(nothing, _cache),
    "results": Job(nothing, _results),
    "checkpoints": Job(nothing, _states),
    "export": Job(_trained, _export),
}
LONG = {
    "text embedding": Job(_text_model, _embed, timed=True),
    "evaluation": Job(_trained_before, _evaluate, timed=True, kills=2),
    **{
        f"training, {memory}": Job(
            _records, lambda folder, memory=memory: _train(folder, memory), timed=True, kills=4
        )
        for memory in MEMORIES
    },
}
