"""Readers of text models, prompts and the cache of embeddings."""

import contextlib
import json
from pathlib import Path

import numpy as np

from campaign.reader import Reader, Result, anything, digest, nothing


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


def write_safetensors(folder: Path) -> None:
    """The same, with the weights in another file."""
    from flax import serialization, traverse_util
    from safetensors.numpy import save_file

    write_text_model(folder)
    tree = serialization.msgpack_restore((folder / "flax_model.msgpack").read_bytes())
    torch = {}
    for parts, leaf in traverse_util.flatten_dict(tree).items():
        name, leaf = ".".join(parts), np.asarray(leaf)
        kernel = name.endswith("kernel")
        for ours, theirs in (
            (".kernel", ".weight"),
            (".embedding", ".weight"),
            (".scale", ".weight"),
        ):
            name = name.replace(ours, theirs)
        torch[f"bert.{name}"] = np.ascontiguousarray(leaf.T if kernel else leaf)
    save_file(torch, folder / "model.safetensors")
    (folder / "flax_model.msgpack").unlink()


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


def readers() -> list[Reader]:
    return [
        Reader("a text model", write_text_model, read_text_model, anything),
        Reader("a text model, safetensors", write_safetensors, read_text_model, anything),
        Reader("prompts", write_prompts, read_prompts, anything),
        Reader("the text cache", write_cache, read_cache, nothing),
    ]
