"""Everything that reads files, as the mutation campaign sees it."""

import contextlib
import hashlib
import importlib
import io
import json
import os
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from campaign.mutations import Mutation

Result = dict[str, str]  # what is read, item by item
ONE = 1
ANY = 10**9


class Reader(NamedTuple):
    """A reader of a folder.

    Attributes:
      make: writes what is read, unmutated.
      read: what a folder holds; raises what a user would see.
      free: of a mutation, in how many groups of items the result may differ, and of which names.
      files: suffixes of what is mutated; all if empty.
      skip: of each so many turns of the campaign one is this reader's.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], Result]
    free: Callable[[Mutation], tuple[int, Callable[[str], bool]]]
    files: tuple[str, ...] = ()
    skip: int = 1


def digest(value: Any) -> str:
    if isinstance(value, np.ndarray):
        data = f"{value.dtype} {value.shape}".encode() + np.ascontiguousarray(value).tobytes()
    else:
        data = repr(value).encode()
    return hashlib.sha256(data).hexdigest()


def nothing(_: Mutation) -> tuple[int, Callable[[str], bool]]:
    """It has digests: any change is refused, or changes nothing."""
    return 0, lambda item: False


def anything(_: Mutation) -> tuple[int, Callable[[str], bool]]:
    """It says what it is, in a form that can be checked and no more: what is read is another."""
    return ANY, lambda item: True


# Published folders.

PUBLISHED = {
    "ptb_xl": ("write_ptb_xl", {"records": 5}, ()),
    "cpsc2018": ("write_cpsc2018", {"layout": "challenge", "records": 4, "max_seconds": 8}, ()),
    "mit_bih": ("write_mit_bih", {"seconds": 12}, ("101", "100", "201")),
}


def write_published(folder: Path, name: str, sums: bool) -> None:
    from tfds_builders.files import SUMS
    from tfds_builders.simulated import layouts

    writer, options, keep = PUBLISHED[name]
    getattr(layouts, writer)(folder, **options)
    if keep:
        for path in folder.iterdir():
            if path.stem not in (*keep, "SHA256SUMS", "RECORDS"):
                path.unlink()
        lines = (folder / SUMS).read_text().splitlines()
        kept = [line for line in lines if line.split()[-1].split(".")[0] in keep]
        (folder / SUMS).write_text("\n".join(kept) + "\n")
        (folder / "RECORDS").unlink(missing_ok=True)
    if not sums:
        (folder / SUMS).unlink()


def read_published(folder: Path, name: str) -> Result:
    """All that a builder would write, read and checked, but not written."""
    from tfds_builders.build import BadRecordsError

    module = importlib.import_module(f"tfds_builders.{name}.{name}_dataset_builder")
    rate = "rate100" if name == "mit_bih" else "rate500"
    builder = module.Builder(config=rate, data_dir=folder.parent / "data")
    found: Result = {}
    with contextlib.ExitStack() as builder._exit, contextlib.redirect_stderr(io.StringIO()):
        shards = builder._shard_iterators_per_split(types.SimpleNamespace(manual_dir=str(folder)))
        for split, parts in shards.items():
            for part in parts:
                for key, example in part():
                    builder.info.features.encode_example(example)
                    flat = {**example, **example.pop("labels")}
                    found |= {f"{key}/{field}": digest(value) for field, value in flat.items()}
                    found[f"{key}/split"] = split
    if builder._run.bad:
        raise BadRecordsError(builder._run.bad, builder._run.total)
    return found


def of_records(mutation: Mutation) -> tuple[int, Callable[[str], bool]]:
    """Without digests: the records whose files were touched, or what a table says of as many
    records as lines of it were."""
    tables = [file for file in mutation.files if file.endswith(".csv")]
    if "scp_statements.csv" in "".join(tables):
        labels = ("super", "sub", "diagnostic", "form", "rhythm", "all", "scp_likelihood")
        return ANY, lambda item: item.split("/")[1] in labels
    if tables:
        return mutation.lines, lambda item: item.split("/")[1] not in ("ecg", "lead_mask")
    owners = {Path(file).name.split(".")[0].split("_")[0].lstrip("0") for file in mutation.files}
    return len(owners), lambda item: item.split("/")[0].split("_")[0] in owners


# Single recordings.


def write_recordings(folder: Path) -> None:
    from written_formats import write_all

    from tfds_builders.simulated.simulator import simulate

    ecg = simulate(np.random.default_rng(0), findings=["NORM", "SR"], seconds=6).ecg_uv
    write_all(folder, ecg[:1500], 500)


def read_recordings(folder: Path) -> Result:
    """Of all formats, which are told by their content, those that were changed are read."""
    from written_formats import FORMATS

    import ecg_jax

    found: Result = {}
    for kind, (name, _, stated) in FORMATS.items():
        path = folder / name
        state = [p.read_bytes() for p in (path, path.with_suffix(".dat")) if p.exists()]
        known = _READ.get((kind, digest(state)))
        if known is None:
            recording = ecg_jax.read(path, **stated)
            T = len(recording.microvolts)
            assert recording.microvolts.shape == (T, 12) and recording.lead_mask.shape == (12,)
            assert np.isfinite(recording.microvolts).all() and recording.rate > 0
            known = digest(recording.microvolts) + digest(recording.lead_mask)
            _READ[(kind, digest(state))] = known
        found[kind] = known
    return found


_READ: dict[tuple[str, str], str] = {}


def of_one_format(mutation: Mutation) -> tuple[int, Callable[[str], bool]]:
    return len(mutation.files), lambda item: True


# Prepared data.


def write_prepared(folder: Path) -> None:
    from tfds_builders import prepare

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        options = ["simulated", "--rate", "100", "--records", "40", "--data_dir", str(folder)]
        assert prepare.main(options) == 0


def read_prepared(folder: Path) -> Result:
    from ecg_jax.data import records

    return {
        split: records.load(folder, "simulated", 100, split).fingerprint()
        for split in ("train", "validation", "test")
    }


# Text models and prompts.


def write_text_model(folder: Path) -> None:
    from bert_oracle import SMALL
    from flax import serialization, traverse_util
    from safetensors.numpy import save_file

    from ecg_jax.models.bert import BertConfig
    from ecg_jax.text import weights

    config = {name: getattr(SMALL, name) for name in BertConfig.__dataclass_fields__}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", "ABC", "sinus", "##es"]
    words += [f"[unused{i}]" for i in range(SMALL.vocab_size - len(words))]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    rng = np.random.default_rng(0)
    shapes = weights.parameter_shapes(SMALL)
    leaves = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    tree = traverse_util.unflatten_dict(leaves, sep="/")
    (folder / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    save_file({"x": np.zeros(3, np.float32)}, folder / "model.safetensors")


def read_text_model(folder: Path) -> Result:
    import jax

    from ecg_jax.errors import UserError
    from ecg_jax.text import tower, weights

    found: Result = {}
    loaded = tower.load(str(folder))
    for leaf in jax.tree.leaves(loaded.params):
        assert np.isfinite(np.asarray(leaf)).all()
    found["tokens"] = str(loaded.tokenizer.encode("a sinus ABC zz").ids)
    found["params"] = loaded.sha256
    found["vocabulary"] = loaded.vocab_sha256
    with contextlib.suppress(UserError):  # a file of another model, whatever was done to it
        weights.load_parameters(folder / "model.safetensors", loaded.config)
    return found


def write_prompts(folder: Path) -> None:
    lines = ['[templates]\nmine = "ecg with {name}"\n']
    for code in "NSVFQ":
        lines.append(f'[aami.{code}]\nname = "{code}"\nreport = ["{code} a.", "{code} b."]\n')
        lines.append(f'definition = ["{code} c."]\n')
    (folder / "own.toml").write_text("".join(lines))


def read_prompts(folder: Path) -> Result:
    from ecg_jax.text import prompts

    sets = prompts.prompt_sets(list("NSVFQ"), "aami", folder / "own.toml")
    for classes in sets.values():
        assert all(texts and all(text.strip() for text in texts) for texts in classes.values())
    return {name: repr(classes) for name, classes in sets.items()}


def write_cache(folder: Path) -> None:
    for text in "abcd":
        _write_entry(folder, text)


def _vector(text: str) -> np.ndarray:
    return np.random.default_rng(ord(text)).normal(size=8).astype(np.float32)


def _write_entry(folder: Path, text: str) -> None:
    from ecg_jax.text import tower

    tower._write_entry(folder / f"{text}.bin", text, _vector(text))


def read_cache(folder: Path) -> Result:
    """An entry that is not as it was written is computed again."""
    from ecg_jax.text import tower

    found = {}
    for text in "abcd":
        vector = tower._read_entry(folder / f"{text}.bin", text, 8)
        found[text] = digest(_vector(text) if vector is None else vector)
    return found


# Runs.


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
    lines = [json.dumps({"step": i, "loss": 1 / i}) for i in range(1, 9)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def read_results(folder: Path) -> Result:
    from ecg_jax.evaluation.figures import predictions, results, tables
    from ecg_jax.runtime import files

    rows = results.read(folder / "results.json")
    tables.table(rows) if rows else None
    found = {"results": repr(rows)}
    for p in predictions.read(folder / "predictions.npz"):
        found |= {f"{p.task} {name}": digest(value) for name, value in p._asdict().items()}
    found["metrics"] = repr(files.read_lines(folder / "metrics.jsonl"))
    return found


def of_results(mutation: Mutation) -> tuple[int, Callable[[str], bool]]:
    """Arrays have digests; rows of text are as they are read. A file that is gone is none yet."""
    gone = mutation.kind in ("drop", "rename")
    return ANY, lambda item: gone or not item.startswith("super")


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


def read_exported(folder: Path) -> Result:
    from flax import traverse_util

    from ecg_jax import export

    model = export.load_exported(folder)
    found = {name: repr(value) for name, value in model.config.items()}
    leaves = traverse_util.flatten_dict(model.variables, sep="/")
    return found | {name: digest(np.asarray(leaf)) for name, leaf in leaves.items()}


def readers() -> list[Reader]:
    found = [
        Reader(
            f"{name}, {'with' if sums else 'without'} digests",
            lambda folder, name=name, sums=sums: write_published(folder, name, sums),
            lambda folder, name=name: read_published(folder, name),
            nothing if sums else of_records,
            # What is read may be all that is listed, as digests of nothing are.
            files=(".hea", ".dat", ".mat", ".atr", ".csv"),
        )
        for name in PUBLISHED
        for sums in (True, False)
    ]
    return [
        *found,
        Reader("recordings of users", write_recordings, read_recordings, of_one_format),
        Reader("prepared data", write_prepared, read_prepared, nothing),
        Reader("a text model", write_text_model, read_text_model, anything),
        Reader("prompts", write_prompts, read_prompts, anything),
        Reader("the text cache", write_cache, read_cache, nothing),
        Reader("a run's config", write_run, read_run, anything),
        Reader("a run's results", write_results, read_results, of_results),
        Reader("checkpoints", write_checkpoints, read_checkpoints, of_checkpoints),
        Reader("an exported model", write_exported, read_exported, nothing, skip=4),
    ]


def files_of(reader: Reader, folder: Path) -> list[str]:
    there = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return [f for f in there if not reader.files or f.endswith(reader.files)]


def clone(source: Path, target: Path) -> None:
    """A copy, quickly: files are small."""
    for folder, _, names in os.walk(source):
        to = target / Path(folder).relative_to(source)
        to.mkdir(parents=True, exist_ok=True)
        for name in names:
            (to / name).write_bytes((Path(folder) / name).read_bytes())
