"""BERT in float64 NumPy, and a small configuration to try it on."""

import numpy as np
from scipy.special import erf

from ecg_jax.models.bert import BertConfig

SMALL = BertConfig(
    vocab_size=50,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=40,
    max_position_embeddings=16,
)


def oracle(config: BertConfig, leaves: dict[str, np.ndarray], token, mask) -> np.ndarray:
    """BERT's last hidden state in float64, written from the paper's equations."""
    p = {name: leaf.astype(np.float64) for name, leaf in leaves.items()}

    def dense(name, x):
        return x @ p[f"{name}/kernel"] + p[f"{name}/bias"]

    def norm(name, x):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + config.layer_norm_eps)
        return x * p[f"{name}/scale"] + p[f"{name}/bias"]

    T, H = token.shape[1], config.num_attention_heads
    d = config.hidden_size // H
    table = "embeddings/{}_embeddings/embedding".format
    x = p[table("word")][token] + p[table("position")][:T] + p[table("token_type")][0]
    x = norm("embeddings/LayerNorm", x)
    for number in range(config.num_hidden_layers):
        layer = f"encoder/layer/{number}"
        q, k, v = (dense(f"{layer}/attention/self/{n}", x) for n in ("query", "key", "value"))
        mixed = np.zeros_like(x)
        for b in range(len(x)):
            for h in range(H):
                part = slice(h * d, (h + 1) * d)
                score = q[b, :, part] @ k[b, mask[b], part].T / np.sqrt(d)
                weight = np.exp(score - score.max(-1, keepdims=True))
                weight /= weight.sum(-1, keepdims=True)
                mixed[b, :, part] = weight @ v[b, mask[b], part]
        y = dense(f"{layer}/attention/output/dense", mixed)
        x = norm(f"{layer}/attention/output/LayerNorm", x + y)
        y = dense(f"{layer}/intermediate/dense", x)
        y = 0.5 * y * (1 + erf(y / np.sqrt(2)))
        x = norm(f"{layer}/output/LayerNorm", x + dense(f"{layer}/output/dense", y))
    return x
