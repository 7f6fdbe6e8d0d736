"""BERT against transformers' FlaxBertModel (stored values) and a NumPy oracle."""

import json

import jax
import jax.numpy as jnp
import make_bert_reference as reference
import numpy as np
import pytest
from bert_oracle import SMALL, oracle
from flax import serialization, traverse_util

from ecg_jax.errors import UserError
from ecg_jax.models.bert import Bert, read_config
from ecg_jax.text import tower, weights


def test_small_model_agrees_with_the_oracle():
    rng = np.random.default_rng(0)
    shapes = weights.parameter_shapes(SMALL)
    leaves = {n: rng.normal(size=s).astype(np.float32) / 3 for n, s in shapes.items()}
    token = rng.integers(0, SMALL.vocab_size, (4, 9))
    mask = np.arange(9) < np.array([[9], [6], [2], [1]])
    params = traverse_util.unflatten_dict(leaves, sep="/")
    hidden, pooled = jax.jit(Bert(SMALL).apply)(
        {"params": params}, jnp.asarray(token), jnp.asarray(mask)
    )
    expected = oracle(SMALL, leaves, token, mask)
    np.testing.assert_allclose(hidden[mask], expected[mask], atol=2e-5)
    first = expected[:, 0] @ leaves["pooler/dense/kernel"] + leaves["pooler/dense/bias"]
    np.testing.assert_allclose(pooled, np.tanh(first), atol=2e-5)


def test_masked_tokens_do_not_matter():
    token, mask = jnp.arange(8)[None], jnp.arange(8)[None] < 5
    params = jax.jit(Bert(SMALL).init)(jax.random.key(0), token, mask)
    apply = jax.jit(Bert(SMALL).apply)
    hidden, _ = apply(params, token, mask)
    other, _ = apply(params, jnp.where(mask, token, 49), mask)
    np.testing.assert_array_equal(hidden[mask], other[mask])
    assert not np.allclose(hidden, apply(params, token + 1, mask)[0])


def test_clinicalbert_at_full_size_agrees_with_transformers(tmp_path):
    """433 MB of seeded values through the real loader; see make_bert_reference.py."""
    (tmp_path / "config.json").write_text(json.dumps(reference.CLINICALBERT))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ECG"]
    words += [f"word{i}" for i in range(len(words), reference.CLINICALBERT["vocab_size"])]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    shapes = weights.parameter_shapes(read_config(tmp_path / "config.json"))
    tree = traverse_util.unflatten_dict(reference.parameters(shapes), sep="/")
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(serialization.msgpack_serialize(tree))
    assert path.stat().st_size > 433e6
    del tree
    try:
        loaded = tower.load(str(tmp_path))
    finally:
        path.unlink()
    assert loaded.cased
    assert loaded.describe()["parameters"] == 108_310_272
    token, mask = reference.inputs()
    hidden, pooled = jax.jit(Bert(loaded.config).apply)({"params": loaded.params}, token, mask)
    with np.load(reference.REFERENCE) as stored:
        difference = np.abs(hidden[..., ::8] - stored["hidden"])[mask]
        assert stored["hidden"][mask].std() > 0.5
        assert difference.max() < 1e-5
        assert np.abs(pooled - stored["pooled"]).max() < 1e-5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "roberta"}, "model_type"),
        ({"hidden_act": "gelu_new"}, "hidden_act"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"num_attention_heads": 7}, "num_attention_heads"),
        ({"vocab_size": None}, "vocab_size"),
    ],
)
def test_unfit_config_is_refused(tmp_path, change, words):
    values = reference.CLINICALBERT | change
    values = {name: value for name, value in values.items() if value is not None}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=words):
        read_config(tmp_path / "config.json")


def test_missing_or_broken_config_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_config(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        read_config(tmp_path / "config.json")
