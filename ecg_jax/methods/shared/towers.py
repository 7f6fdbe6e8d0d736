"""A network as the pure functions that a method without a text side is made of."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from ecg_jax import Config
from ecg_jax.data import augment
from ecg_jax.errors import UserError
from ecg_jax.methods import Encoded, Method, View
from ecg_jax.methods.shared import health
from ecg_jax.models.chunked import check_chunks, in_chunks
from ecg_jax.models.heads import normalize
from ecg_jax.runtime import parallel

Tree = Any


def training_pass(network: nn.Module, config: Config) -> Callable[..., tuple[Any, Tree]]:
    """(variables, x) -> (outputs, {"batch_stats"} after them), BatchNorm's statistics being those
    of all of x or, by config.parallel.batch_norm, of each device's part."""
    train = functools.partial(network.apply, train=True, mutable=["batch_stats"])
    return parallel.per_device(train) if config.parallel.batch_norm == "device" else train


def over_views(
    run: Callable[[jax.Array], tuple[Any, Tree]], x: jax.Array, chunks: int
) -> tuple[Any, Tree]:
    """`run`, which takes [N, ...], on views x [B, V, ...], in chunks of records: -> (outputs of
    [B, V, ...], what `run` updated)."""

    def flat(x: jax.Array) -> tuple[Any, Tree]:
        outputs, updated = run(x.reshape(-1, *x.shape[2:]))
        return jax.tree.map(lambda y: y.reshape(*x.shape[:2], *y.shape[1:]), outputs), updated

    return in_chunks(flat, x, chunks)


class Towers:
    """`network` is a Flax module (x [N, T, 12], train) -> a NamedTuple of arrays [N, ...] with
    `features` float32 [N, D], for probes, and `projection` [N, P]; its submodules are the entries
    of `params`. (`init` and `train` alone take any network.)
    """

    def __init__(self, config: Config, network: nn.Module, *, second: bool = True):
        """config.augment and, if the second view has its own, config.augment_second;
        config.accumulate; config.parallel.batch_norm. `second` is whether there is such a view:
        the chains of both are `chains`.

        Raises:
          UserError: a batch that the chunks do not divide, an augmentation for a second view that
            is not made, a config of a method that reads reports, or see `augment.compose`.
        """
        self.network, self.chunks = network, config.accumulate
        check_chunks(config.batch_size, self.chunks)
        if config.parallel.loss != "plain":
            raise UserError(
                f"--config.parallel.loss={config.parallel.loss} is of the losses against reports: "
                f"{config.method} has the plain one"
            )
        if "text" in config:
            raise UserError(
                f"{config.method} learns without reports, and this config names a text tower: use "
                f"configs/{config.method}.py"
            )
        if config.augment_second and not second:
            raise UserError(
                f"{config.method} augments all views alike: leave --config.augment_second empty"
            )
        chains = config.augment, config.augment_second or config.augment
        self.chains = tuple(augment.compose(chain, config.rate) for chain in chains)
        self._train = training_pass(network, config)

    def init(self, key: jax.Array, view: View) -> tuple[Tree, Tree]:
        variables = self.network.init(key, view.ecg, train=False)
        return variables["params"], {"batch_stats": variables["batch_stats"]}

    def views(self, key: jax.Array, view: View) -> jax.Array:
        """[B, 2, T, 12]: two augmented views of every record."""
        pairs = zip(jax.random.split(key), self.chains, strict=True)
        return jnp.stack([chain(k, view.ecg, view.lead_mask)[0] for k, chain in pairs], axis=1)

    def train(self, params: Tree, state: Tree, x: jax.Array) -> tuple[Any, Tree]:
        """The network on views x [B, V, T, 12], in training mode: -> (outputs of [B, V, ...],
        {"batch_stats"} after them). A record's views stay on its device, and BatchNorm takes all
        views of the batch together."""
        variables = {"params": params, "batch_stats": state["batch_stats"]}
        return over_views(functools.partial(self._train, variables), x, self.chunks)

    def health(self, out: Any) -> dict[str, jax.Array]:
        """`health.of_pairs` of both views' projections [B, 2, P]."""
        z = normalize(out.projection)
        return health.of_pairs(z[:, 0], z[:, 1])

    def encode(self, params: Tree, state: Tree, ecg: jax.Array, lead_mask: jax.Array) -> Encoded:
        del lead_mask  # a lead that is not there is zero, and that is all this encoder sees of it
        variables = {"params": params, "batch_stats": state["batch_stats"]}
        out: Any = self.network.apply(variables, ecg, train=False)
        return Encoded(out.features, normalize(out.projection))

    def train_encode(self, params: Tree, state: Tree, ecg: jax.Array, lead_mask: jax.Array):
        del lead_mask
        variables = {"params": params, "batch_stats": state["batch_stats"]}
        out: Any
        out, updated = self._train(variables, ecg)
        return out.features, {**state, **updated}

    def method(self, loss: Any, **others: Any) -> Method:
        """A method of this network without a text side; `others` as in `Method`."""
        return Method(self.init, loss, self.encode, self.train_encode, **others)
