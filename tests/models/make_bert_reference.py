"""Writes bert_reference.npz: what transformers' own FlaxBertModel makes of seeded parameters.

transformers 4.57.6 is the last version with that class, so this runs in an environment of its own:

    uv venv old -p 3.11
    uv pip install -p old 'transformers==4.57.6' flax jax numpy
    old/bin/python tests/models/make_bert_reference.py

The stored file was made with jax 0.10.2 and flax 0.12.8 on a CPU.
"""

from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).with_name("bert_reference.npz")
SEED = 20231

# config.json of emilyalsentzer/Bio_ClinicalBERT
CLINICALBERT = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 2,
    "vocab_size": 28996,
}


def parameters(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Seeded float32 values, drawn in the order of the sorted names."""
    rng = np.random.default_rng(SEED)
    values = {}
    for name in sorted(shapes):
        values[name] = 0.02 * rng.standard_normal(shapes[name], np.float32)
        if name.endswith("scale"):
            values[name] += 1.0
    return values


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """Token numbers int32 [3, 24] and mask bool [3, 24] of texts with 24, 11 and 2 tokens."""
    rng = np.random.default_rng(SEED + 1)
    token = rng.integers(0, CLINICALBERT["vocab_size"], (3, 24), dtype=np.int32)
    mask = np.arange(24) < np.array([[24], [11], [2]])
    return np.where(mask, token, 0).astype(np.int32), mask


def main() -> None:
    from flax.traverse_util import flatten_dict, unflatten_dict
    from transformers import BertConfig, FlaxBertModel

    model = FlaxBertModel(BertConfig(**CLINICALBERT), _do_init=False)
    template = flatten_dict(model.params_shape_tree, sep="/")
    values = parameters({name: leaf.shape for name, leaf in template.items()})
    token, mask = inputs()
    out = model(token, attention_mask=mask.astype(np.int32), params=unflatten_dict(values, sep="/"))
    hidden = np.asarray(out.last_hidden_state)[..., ::8]  # every eighth feature keeps it small
    np.savez_compressed(REFERENCE, hidden=hidden, pooled=np.asarray(out.pooler_output))


if __name__ == "__main__":
    main()
