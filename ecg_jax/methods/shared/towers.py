"""A network as the pure functions that a method without a text side is made of."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ecg_jax import Config
from ecg_jax.data import augment, lead_views
from ecg_jax.errors import UserError
from ecg_jax.methods import Encoded, Method, View
from ecg_jax.methods.shared import health
from ecg_jax.models.chunked import check_chunks, in_chunks
from ecg_jax.models.heads import normalize
from ecg_jax.models.resnet1d import feature_maps, stages
from ecg_jax.models.siamese import platform_of
from ecg_jax.runtime import parallel

Tree = Any


def training_pass(
    network: nn.Module, config: Config, method: str | None = None
) -> Callable[..., tuple[Any, Tree]]:
    """(variables, x) -> (outputs, {"batch_stats"} after them) of the network, or of a method of it,
    BatchNorm's statistics being those of all of x or, by config.parallel.batch_norm, of each
    device's part."""
    train = functools.partial(network.apply, train=True, mutable=["batch_stats"], method=method)
    return parallel.per_device(train) if config.parallel.batch_norm == "device" else train


def over_views(
    run: Callable[[jax.Array], tuple[Any, Tree]], x: jax.Array, chunks: int, platform: str
) -> tuple[Any, Tree]:
    """`run`, which takes [N, ...], on views x [B, V, ...], in chunks of records: -> (outputs of
    [B, V, ...], what `run` updated)."""

    def flat(x: jax.Array) -> tuple[Any, Tree]:
        outputs, updated = run(x.reshape(-1, *x.shape[2:]))
        return jax.tree.map(lambda y: y.reshape(*x.shape[:2], *y.shape[1:]), outputs), updated

    return in_chunks(flat, x, chunks, platform)


def chains(config: Config) -> tuple[augment.Augmentation, augment.Augmentation]:
    """config.augment and config.augment_second or, if that is empty, the first again.

    Raises:
      UserError: views of two lengths, or see `augment.compose` and `augment.length`.
    """
    both = config.augment, config.augment_second or config.augment
    made = augment.compose(both[0], config.rate), augment.compose(both[1], config.rate)
    one, two = (augment.length(chain, config.seconds) for chain in both)
    if one != two:
        raise UserError(
            f"the views of --config.augment last {one:g} s and those of augment_second {two:g} s: "
            "give both the same crop, or none"
        )
    return made


def check_aligned(config: Config) -> None:
    """Raises a UserError if each view is another stretch of the record, for a method that holds
    the same times of both against each other."""
    if any(step["name"] == "crop" for step in (*config.augment, *config.augment_second)):
        raise UserError(
            f"{config.method} compares the times of one view with those of the other, and the "
            "augmentation crop cuts each elsewhere: leave it out, or set --config.seconds lower"
        )


class Towers:
    """`network` is a Flax module (x [N, T, 12], train) -> a NamedTuple of arrays [N, ...] with
    `features` float32 [N, D], for probes, and `projection` [N, P]; its submodules are the entries
    of `params`. (`init` and `train` alone take any network.)
    """

    def __init__(
        self,
        config: Config,
        network: nn.Module,
        *,
        second: bool = True,
        groups: np.ndarray | None = None,
    ):
        """config.augment and, if the second view has its own, config.augment_second;
        config.accumulate; config.parallel.batch_norm. `second` is whether there is such a view:
        the chains of both are `chains`. `groups` bool [G, 12] are the leads of each view that the
        network was trained on, if these show few: `encode` shows it no others.

        Raises:
          UserError: a batch that the chunks do not divide, an augmentation for a second view that
            is not made, a config of a method that reads reports, or see `chains`.
        """
        self.config, self.network, self.groups = config, network, groups
        self.chunks = config.accumulate
        self.platform = platform_of(config)
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
        self.chains = chains(config)
        self._train = training_pass(network, config)

    def init(self, key: jax.Array, view: View) -> tuple[Tree, Tree]:
        variables = self.network.init(key, view.ecg, train=False)
        return variables["params"], {"batch_stats": variables.get("batch_stats", {})}

    def views(self, key: jax.Array, view: View) -> jax.Array:
        """[B, 2, T, 12]: two augmented views of every record, of T samples or as a `crop` leaves
        them."""
        pairs = zip(jax.random.split(key), self.chains, strict=True)
        return jnp.stack([chain(k, view.ecg, view.lead_mask)[0] for k, chain in pairs], axis=1)

    def train(
        self, params: Tree, state: Tree, x: jax.Array, method: str | None = None
    ) -> tuple[Any, Tree]:
        """The network, or a method of it, on views x [B, V, T, 12], in training mode: -> (outputs
        of [B, V, ...], {"batch_stats"} after them). A record's views stay on its device, and
        BatchNorm takes all views of the batch together."""
        variables = {"params": params, "batch_stats": state["batch_stats"]}
        train = training_pass(self.network, self.config, method) if method else self._train
        run = functools.partial(train, variables)
        return over_views(run, x, self.chunks, self.platform)

    def health(self, out: Any) -> dict[str, jax.Array]:
        """`health.of_pairs` of both views' projections [B, 2, P]."""
        z = normalize(out.projection)
        return health.of_pairs(z[:, 0], z[:, 1])

    def encode(self, params: Tree, state: Tree, ecg: jax.Array, lead_mask: jax.Array) -> Encoded:
        """Of lead groups, each encoded by itself, the features and embeddings side by side."""
        del lead_mask  # a lead that is not there is zero, and that is all this encoder sees of it
        variables = {"params": params, "batch_stats": state["batch_stats"]}
        x = self._in_groups(ecg)
        run = functools.partial(self.network.apply, train=False, mutable=["intermediates"])
        out: Any
        out, inside = over_views(functools.partial(run, variables), x, 1, self.platform)
        (B, V), z = x.shape[:2], normalize(out.projection)

        def side_by_side(maps: jax.Array) -> jax.Array:
            maps = maps.reshape(B, V, *maps.shape[1:]).swapaxes(1, 2)
            return maps.reshape(*maps.shape[:2], -1)

        maps = jax.tree.map(side_by_side, feature_maps(inside, B * V))
        return Encoded(out.features.reshape(B, -1), normalize(z.reshape(B, -1)), *maps)

    def train_encode(self, params: Tree, state: Tree, ecg: jax.Array, lead_mask: jax.Array):
        del lead_mask
        variables = {"params": params, "batch_stats": state["batch_stats"]}
        run = functools.partial(self._train, variables)
        out, updated = over_views(run, self._in_groups(ecg), 1, self.platform)
        return out.features.reshape(len(ecg), -1), {**state, **updated}

    def stages(
        self, params: Tree, state: Tree, ecg: jax.Array, lead_mask: jax.Array, train: bool
    ) -> tuple[tuple, Tree]:
        """Of an encoder that sees all leads of the whole record."""
        del lead_mask
        variables = {"params": params, "batch_stats": state["batch_stats"]}
        found, updated = stages(self.network, variables, ecg, train)
        return found, {**state, **updated}

    def _in_groups(self, ecg: jax.Array) -> jax.Array:
        """[B, G, T, 12], with G = 1 where the network is shown all leads."""
        return ecg[:, None] if self.groups is None else lead_views.apart(ecg, self.groups)

    def method(self, loss: Any, **others: Any) -> Method:
        """A method of this network without a text side; `others` as in `Method`."""
        whole = self.groups is None and not others.get("whole")
        given: dict[str, Any] = {"stages": self.stages if whole else None} | others
        return Method(self.init, loss, self.encode, self.train_encode, **given)
