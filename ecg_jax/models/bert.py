"""BERT (Devlin et al. 2019, arXiv 1810.04805), the encoder behind the text towers.

Submodules are named as in the published Flax checkpoints (`encoder/layer/0/attention/self/query`),
so that ClinicalBERT's `flax_model.msgpack` is this module's parameter tree. There is no dropout:
the model is only used frozen.
"""

import dataclasses
import json
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp

from ecg_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The fields of a published `config.json` that shape the computation."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12


MOST = {
    "vocab_size": 10_000_000,
    "hidden_size": 65_536,
    "num_hidden_layers": 1000,
    "num_attention_heads": 1024,
    "intermediate_size": 1_000_000,
    "max_position_embeddings": 1_000_000,
    "type_vocab_size": 1000,
}


def read_config(path: Path) -> BertConfig:
    """Reads a `config.json`.

    Raises:
      UserError: no such file, not JSON, a missing field, or a model that is not plain BERT.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError:
        raise UserError(f"{path}: no such file; a text model's folder needs config.json") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a JSON object, so no model's configuration")
    for field, supported in (
        ("model_type", "bert"),
        ("hidden_act", "gelu"),
        ("position_embedding_type", "absolute"),
    ):
        if values.get(field, supported) != supported:
            raise UserError(
                f"{path}: {field} is {values[field]!r}; only {supported!r} is supported"
            )
    fields = dataclasses.fields(BertConfig)
    required = [field.name for field in fields if field.default is dataclasses.MISSING]
    if missing := [name for name in required if name not in values]:
        raise UserError(f"{path}: lacks {', '.join(missing)}")
    config = BertConfig(
        **{field.name: values[field.name] for field in fields if field.name in values}
    )
    for field in fields:
        value = getattr(config, field.name)
        kind, most = (float, 1) if field.name == "layer_norm_eps" else (int, MOST[field.name])
        if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value <= most:
            raise UserError(f"{path}: {field.name} is {str(value)[:40]!r}, no BERT's")
    if config.hidden_size % config.num_attention_heads:
        raise UserError(f"{path}: hidden_size is not a multiple of num_attention_heads")
    return config


class Embeddings(nn.Module):
    config: BertConfig

    @nn.compact
    def __call__(self, token_BxT: jax.Array) -> jax.Array:
        c = self.config
        word = nn.Embed(c.vocab_size, c.hidden_size, name="word_embeddings")
        position = nn.Embed(c.max_position_embeddings, c.hidden_size, name="position_embeddings")
        segment = nn.Embed(c.type_vocab_size, c.hidden_size, name="token_type_embeddings")
        steps = jnp.arange(token_BxT.shape[1])
        # A report or prompt is one segment, number 0.
        x_BxTxD = word(token_BxT) + position(steps) + segment(jnp.zeros_like(token_BxT))
        return nn.LayerNorm(c.layer_norm_eps, name="LayerNorm")(x_BxTxD)


class SelfAttention(nn.Module):
    config: BertConfig

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, mask_BxT: jax.Array) -> jax.Array:
        B, T, D = x_BxTxD.shape
        H = self.config.num_attention_heads
        query, key, value = (
            nn.Dense(D, name=name)(x_BxTxD).reshape(B, T, H, D // H)
            for name in ("query", "key", "value")
        )
        score_BxHxTxS = jnp.einsum("bthd,bshd->bhts", query, key) / (D // H) ** 0.5
        score_BxHxTxS = jnp.where(mask_BxT[:, None, None, :], score_BxHxTxS, -jnp.inf)
        mixed = jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(score_BxHxTxS), value)
        return mixed.reshape(B, T, D)


class Residual(nn.Module):
    """Projects back to the residual stream, adds to it, normalises (post-norm)."""

    config: BertConfig

    @nn.compact
    def __call__(self, y: jax.Array, x_BxTxD: jax.Array) -> jax.Array:
        projected = nn.Dense(self.config.hidden_size, name="dense")(y)
        return nn.LayerNorm(self.config.layer_norm_eps, name="LayerNorm")(x_BxTxD + projected)


class Attention(nn.Module):
    config: BertConfig

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, mask_BxT: jax.Array) -> jax.Array:
        mixed_BxTxD = SelfAttention(self.config, name="self")(x_BxTxD, mask_BxT)
        return Residual(self.config, name="output")(mixed_BxTxD, x_BxTxD)


class Intermediate(nn.Module):
    config: BertConfig

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array) -> jax.Array:
        hidden = nn.Dense(self.config.intermediate_size, name="dense")(x_BxTxD)
        return jax.nn.gelu(hidden, approximate=False)


class Layer(nn.Module):
    config: BertConfig

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, mask_BxT: jax.Array) -> jax.Array:
        x_BxTxD = Attention(self.config, name="attention")(x_BxTxD, mask_BxT)
        hidden = Intermediate(self.config, name="intermediate")(x_BxTxD)
        return Residual(self.config, name="output")(hidden, x_BxTxD)


class Layers(nn.Module):
    config: BertConfig

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, mask_BxT: jax.Array) -> jax.Array:
        for number in range(self.config.num_hidden_layers):
            x_BxTxD = Layer(self.config, name=str(number))(x_BxTxD, mask_BxT)
        return x_BxTxD


class Encoder(nn.Module):
    config: BertConfig

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, mask_BxT: jax.Array) -> jax.Array:
        return Layers(self.config, name="layer")(x_BxTxD, mask_BxT)


class Pooler(nn.Module):
    config: BertConfig

    @nn.compact
    def __call__(self, x_BxD: jax.Array) -> jax.Array:
        return jnp.tanh(nn.Dense(self.config.hidden_size, name="dense")(x_BxD))


class Bert(nn.Module):
    """token_BxT int32, mask_BxT bool (True: a token) -> hidden_BxTxD and pooled_BxD, float32.

    Every row needs at least one True. `hidden` at masked positions is meaningless. `pooled` is the
    published pooler's output for the first token, [CLS]; without `pooler`, which weights may lack,
    that token's `hidden`.
    """

    config: BertConfig
    pooler: bool = True

    @nn.compact
    def __call__(self, token_BxT: jax.Array, mask_BxT: jax.Array) -> tuple[jax.Array, jax.Array]:
        x_BxTxD = Embeddings(self.config, name="embeddings")(token_BxT)
        x_BxTxD = Encoder(self.config, name="encoder")(x_BxTxD, mask_BxT)
        if not self.pooler:
            return x_BxTxD, x_BxTxD[:, 0]
        return x_BxTxD, Pooler(self.config, name="pooler")(x_BxTxD[:, 0])
