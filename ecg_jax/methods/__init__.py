"""Published systems, one file each: `build(config) -> Method`. What they share is in `shared/`."""

import dataclasses
import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ecg_jax import Config
from ecg_jax.errors import UserError
from ecg_jax.runtime import parallel

Tree = Any


class View(NamedTuple):
    """A batch as a method sees it.

    Attributes:
      ecg: float32 [B, T, 12], normalised as the recipe says, not yet augmented.
      lead_mask: bool [B, 12].
      text: float32 [B, F], frozen embeddings of the reports; F is 0 for a method without text.
      text_id: int32 [B], equal for equal reports.
      row: int32 [B], which of the split's records each is.
      patient: int32 [B], equal for records of one patient.
      physiology: `physiology_table.Features` of the records, for a method that learns from them;
        None stands for records that show nothing.
    """

    ecg: jax.Array
    lead_mask: jax.Array
    text: jax.Array
    text_id: jax.Array
    row: jax.Array
    patient: jax.Array
    physiology: Any = None


class Encoded(NamedTuple):
    """features float32 [B, D] for probes; embedding float32 [B, E], unit vectors, for zero-shot;
    map [B, P, D], whose mean over the P positions in time the features are; earlier, those of
    earlier stages, [B, P', D'] each."""

    features: Any
    embedding: Any
    map: Any
    earlier: tuple[Any, ...] = ()


class Plan(NamedTuple):
    """How long a run is: training records, and the updates that it will make."""

    records: int
    steps: int


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("index", "value"), meta_fields=("axis",)
)
@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of one of the memory's arrays that an update writes: `value` at `index` (int32) along
    `axis`. The array itself is read and written there only, whether the update is made or not."""

    index: jax.Array
    value: jax.Array
    axis: int = 0

    def into(self, array: jax.Array, made: jax.Array | bool = True) -> jax.Array:
        """The array with these rows, if the update is `made`."""
        place = (slice(None),) * self.axis + (self.index,)
        return array.at[place].set(jnp.where(made, self.value, array[place]))


class Method(NamedTuple):
    """A system as pure functions; `params` are trained, `state` is not.

    Attributes:
      init: (key, View) -> (params, state); the state, a dict, is what `encode` needs (BatchNorm).
      loss: (params, state, View, key) -> (loss, (new state, metrics)).
      encode: (params, state, ecg [B, T, 12], lead_mask [B, 12]) -> Encoded.
      train_encode: as `encode`, in training mode (BatchNorm of the batch, dropout): -> (features
        float32 [B, D], new state). What `loss` sees of an ECG that is augmented already.
      encode_text: (params, float [B, F]) -> unit vectors [B, E]; None without a text side.
      memory: (params, state, Plan) -> a dict, what training alone remembers (a target network, a
        queue): `loss` finds it as state["memory"] and returns it so, or `Rows` of what is in it;
        or None.
      rows: names of what in the memory lies in parts over the devices, by its first axis.
      after_update: (params, state) -> state, once the optimiser has stepped (EMA); or None.
      bounded: params -> params, what the optimiser has made of them brought back to where they may
        be; or None.
      leads: names of leads that every training record must have.
      platform: of the devices that its programs are for, see `build`.
      whole: whether every training record must last `config.seconds`, because parts of it are
        compared, and zeros would stand where it has ended.
      stages: (params, state, ecg, lead_mask, train) -> (the encoder's stages [B, T_i, D_i], the
        finest first, new state), for what needs places in time; None where the encoder does not see
        all leads of the whole record at once.
      physiology: whether `loss` reads `View.physiology`, which is measured before training then.
    """

    init: Callable[[jax.Array, View], tuple[Tree, Tree]]
    loss: Callable[[Tree, Tree, View, jax.Array], tuple[jax.Array, tuple[Tree, dict]]]
    encode: Callable[[Tree, Tree, jax.Array, jax.Array], Encoded]
    train_encode: Callable[[Tree, Tree, jax.Array, jax.Array], tuple[jax.Array, Tree]]
    encode_text: Callable[[Tree, jax.Array], jax.Array] | None = None
    memory: Callable[[Tree, Tree, Plan], Tree] | None = None
    rows: tuple[str, ...] = ()
    after_update: Callable[[Tree, Tree], Tree] | None = None
    bounded: Callable[[Tree], Tree] | None = None
    leads: tuple[str, ...] = ()
    whole: bool = False
    stages: Callable[[Tree, Tree, jax.Array, jax.Array, bool], tuple[tuple, Tree]] | None = None
    physiology: bool = False
    platform: str = "cpu"


def build(config: Config, platform: str = "") -> Method:
    """The method that `config.method` names: a module of this package.

    Args:
      platform: cpu, gpu or tpu, of the devices that its programs will be compiled for, which
        decides what is "auto" and in which form things are computed; by default that of the
        devices that are here. The module finds it as `config.platform`.

    Raises:
      UserError: there is none of that name.
    """
    name = f"{__name__}.{config.method}"
    spec = importlib.util.find_spec(name) if str(config.method).isidentifier() else None
    if spec is None or spec.submodule_search_locations is not None:  # a folder is no method
        raise UserError(f"no method {config.method!r}: ecg_jax/methods/ has no such file")
    resolved = config.copy_and_resolve_references()
    with resolved.unlocked():  # the command line's is locked
        resolved.platform = platform or parallel.platform()
    return importlib.import_module(name).build(resolved)._replace(platform=resolved.platform)


def lasting(state: Tree) -> Tree:
    """A state without the memory: what `encode` needs."""
    return {name: tree for name, tree in state.items() if name != "memory"}
