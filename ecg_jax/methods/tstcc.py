"""TS-TCC (Eldele et al. 2021, arXiv 2106.14112): from the past of one view, tell the future of the
other; and a record's two pasts from those of other records.

As in the released code, z_t has unit length in both the context and the targets, which the weights
of the two losses rest on. That code takes its softmax over the contexts for each target; equations
1 and 2, and this file, over the targets for each context. Its permutation copies the first channel
into all others; its projector has BatchNorm and its transformer dropout, which these have not. Its
encoder sees little at once; this one is shown each stretch by itself, see `cpc`.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from ecg_jax import Config
from ecg_jax.errors import UserError
from ecg_jax.losses.contrastive import nt_xent
from ecg_jax.losses.future_nce import predictive_nce
from ecg_jax.methods import Method, View
from ecg_jax.methods.shared import health
from ecg_jax.methods.shared.towers import Towers, check_aligned
from ecg_jax.models.context import Predictive, predict, stretch
from ecg_jax.models.heads import MLP, normalize
from ecg_jax.models.siamese import encoder
from ecg_jax.models.transformer import Transformer


class Summary(nn.Module):
    """Equations 3-5: a token that attends to the map up to a time becomes that time's context.

    (map [N, P, D], times int [A]) -> [N, A, hidden]
    """

    hidden: int
    layers: int
    heads: int
    mlp: int

    @nn.compact
    def __call__(self, z: jax.Array, times: jax.Array) -> jax.Array:
        N, P, A = *z.shape[:2], len(times)
        token = self.param("token", nn.initializers.normal(1.0), (self.hidden,))
        token = jnp.broadcast_to(token, (N, 1, self.hidden))
        x = jnp.concatenate([token, nn.Dense(self.hidden, name="inputs")(normalize(z))], axis=1)
        x = jnp.broadcast_to(x[:, None], (N, A, 1 + P, self.hidden))
        seen = jnp.arange(-1, P) <= times[:, None]
        transformer = Transformer(self.layers, self.heads, self.mlp, name="transformer")
        return transformer(x, seen)[:, :, 0]


def build(config: Config) -> Method:
    """config.model: stretch, the seconds that the encoder sees at once; ahead, the share of the
    stretches that is predicted; hidden, layers, heads and mlp of the transformer; dim of the
    projector; temperature; temporal and contextual, lambda_1 and lambda_2. config.augment is the
    weak view, config.augment_second the strong one; see `Towers`.

    Raises:
      UserError: no second view, heads that do not divide hidden, a negative weight, no
        positions to predict, or views cut elsewhere each.
    """
    m = config.model
    steps = steps_ahead(config)
    if not config.augment_second:
        raise UserError("TS-TCC holds a weak view against a strong one: set config.augment_second")
    if min(m.layers, m.heads, m.mlp, m.hidden) < 1 or m.hidden % m.heads:
        raise UserError(
            f"a transformer of model.layers={m.layers}, heads={m.heads}, mlp={m.mlp} and "
            f"hidden={m.hidden}: all must be above zero, and heads divide hidden"
        )
    for name in ("temporal", "contextual"):
        if m[name] < 0:
            raise UserError(f"--config.model.{name}={m[name]}: must not be negative")
    summary = Summary(m.hidden, m.layers, m.heads, m.mlp)
    projector = MLP((m.hidden, m.dim), norm=False)
    towers = Towers(config, Predictive(encoder(config), summary, steps, stretch(config), projector))
    check_aligned(config)

    def loss(params: dict, state: dict, view: View, key: jax.Array):
        k_views, k_time = jax.random.split(key)
        out, updated = towers.train(params, state, towers.views(k_views, view))
        z = out.map
        B, V, P, D = z.shape
        past = P - steps
        t = jax.random.randint(k_time, (1,), 0, past)
        c = summary.apply({"params": params["context"]}, z[:, :, :past].reshape(-1, past, D), t)
        c = jnp.asarray(c).reshape(B, V, m.hidden)
        temporal, accuracy = across_views(predict(params["heads"], c), z, t[0])
        p = projector.apply({"params": params["projector"]}, c, train=True)
        a, b = normalize(jnp.asarray(p)).swapaxes(0, 1)
        contextual = nt_xent(a, b, m.temperature)  # eq. 6
        value = m.temporal * temporal + m.contextual * contextual  # eq. 7
        metrics = {"temporal": temporal, "contextual": contextual, "accuracy": accuracy}
        return value, ({**state, **updated}, {**health.of_pairs(a, b), **metrics})

    return towers.method(loss, whole=True)


def across_views(predicted: jax.Array, z: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """L_TC^s + L_TC^w (equations 1 and 2): W_k c_t of each view, predicted [B, 2, K, D], against
    z_{t+k} of the other, in z [B, 2, P, D]. Negatives are the other records at that time.

    Returns:
      float32 scalars: the sum, and how often the positive comes first.
    """
    target = jax.lax.dynamic_slice_in_dim(z[:, ::-1], t + 1, predicted.shape[2], axis=2)
    mean, accuracy = predictive_nce(predicted, normalize(target))
    return 2 * mean, accuracy


def steps_ahead(config: Config) -> int:
    """K, `model.ahead` of a record's stretches.

    Raises:
      UserError: that is none of them, or all.
    """
    m = config.model
    P = round(config.seconds * config.rate) // stretch(config)
    steps = int(m.ahead * P)
    if not 0 < steps < P:
        raise UserError(
            f"TS-TCC predicts model.ahead={m.ahead:g} of a record's {P} stretches of "
            f"{m.stretch:g} s from the others: {config.seconds:g} s and this share leave none on "
            "one side; set --config.seconds or --config.model.ahead"
        )
    return steps
