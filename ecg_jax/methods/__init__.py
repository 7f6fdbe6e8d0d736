"""Published systems, one file each: `build(config) -> Method`."""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from ecg_jax.config import Config
from ecg_jax.errors import UserError

Tree = Any


class View(NamedTuple):
    """A batch as a method sees it.

    Attributes:
      ecg: float32 [B, T, 12], normalised as the recipe says, not yet augmented.
      lead_mask: bool [B, 12].
      text: float32 [B, F], frozen embeddings of the reports.
      text_id: int32 [B], equal for equal reports.
    """

    ecg: jax.Array
    lead_mask: jax.Array
    text: jax.Array
    text_id: jax.Array


class Encoded(NamedTuple):
    """features float32 [B, D] for probes; embedding float32 [B, E], unit vectors, for zero-shot."""

    features: Any
    embedding: Any


class Method(NamedTuple):
    """A system as pure functions; `params` are trained, `state` is not (BatchNorm, queues).

    Attributes:
      init: (key, View) -> (params, state).
      loss: (params, state, View, key) -> (loss, (new state, metrics)).
      encode: (params, state, ecg [B, T, 12], lead_mask [B, 12]) -> Encoded.
      train_encode: as `encode`, in training mode (BatchNorm of the batch, dropout): -> (features
        float32 [B, D], new state). What `loss` sees of an ECG that is augmented already.
      encode_text: (params, float [B, F]) -> unit vectors [B, E]; None without a text side.
      after_update: (params, state) -> state, once the optimiser has stepped (EMA); or None.
    """

    init: Callable[[jax.Array, View], tuple[Tree, Tree]]
    loss: Callable[[Tree, Tree, View, jax.Array], tuple[jax.Array, tuple[Tree, dict]]]
    encode: Callable[[Tree, Tree, jax.Array, jax.Array], Encoded]
    train_encode: Callable[[Tree, Tree, jax.Array, jax.Array], tuple[jax.Array, Tree]]
    encode_text: Callable[[Tree, jax.Array], jax.Array] | None = None
    after_update: Callable[[Tree, Tree], Tree] | None = None


def build(config: Config) -> Method:
    """The method that `config.method` names: a module of this package.

    Raises:
      UserError: there is none of that name.
    """
    name = f"{__name__}.{config.method}"
    if not str(config.method).isidentifier() or importlib.util.find_spec(name) is None:
        raise UserError(f"no method {config.method!r}: ecg_jax/methods/ has no such file")
    return importlib.import_module(name).build(config)
