"""wav2vec 2.0 for ECGs (Baevski et al. 2020, arXiv 2006.11477; for ECGs Oh et al. 2022, CHIL, arXiv
2203.06889): convolutions make tokens of a record, a transformer reads all of them.

Layers are those of the released code, which published weights fit: GroupNorm in the first block
alone (the paper prints LayerNorm in each), LayerNorm after attention and MLP, erf GELU. Where it
computes the mean and variance of a block over the whole window, a record padded with zeros has
other features at every token.
"""

import dataclasses
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ecg_jax.models.noise import Draws, drawn, dropout

EPSILON = 1e-5  # of every norm
TOKEN = 256  # channels of a token, before it is projected
TAPS, GROUPS = 128, 16  # of the positional convolution
STRIDES = {500: (2, 2, 2, 2), 100: (2, 3)}  # of the blocks, by rate: tokens of 32 and of 60 ms


@dataclasses.dataclass(frozen=True)
class Size:
    """Layers of the transformer, its width, heads and the hidden units of its MLPs."""

    layers: int
    width: int
    heads: int
    mlp: int


SIZES = {
    "small": Size(2, 128, 4, 384),
    "base": Size(12, 768, 12, 3072),
    "large": Size(24, 1024, 16, 4096),
}
TOKENS = {"small": 64}  # channels of a token where they are not TOKEN


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Rates in training: of tokens and between layers, of attention's weights, within MLPs."""

    layers: float = 0.1
    attention: float = 0.0
    activation: float = 0.0


class Wav2Vec2(nn.Module):
    """x [N, T, 12] float -> features float32 [N, D], the mean over the last layer's tokens.

    Attributes:
      size: see `Size`.
      strides: of the convolutions, which are as wide as they stride; a token is their product.
      token: channels of the convolutions.
      extractor: "group", GroupNorm in the first convolution alone, or "layer", LayerNorm in all.
      rates: see `Dropout`.
      scale: of the gradient into the convolutions.
      dtype: of activations; parameters, norms and the softmax stay float32.
      remat: keep only the layers' inputs for the backward pass.
      platform: of the devices; a CPU has no fast grouped convolution.
    """

    size: Size
    strides: tuple[int, ...] = STRIDES[500]
    token: int = TOKEN
    extractor: str = "group"
    rates: Dropout = Dropout()
    scale: float = 0.1
    dtype: jnp.dtype = jnp.float32
    remat: bool = False
    platform: str = "cpu"

    def setup(self) -> None:
        self.tokenizer = Tokenizer(self.token, self.strides, self.extractor, self.dtype)
        self.norm_token = _norm()
        init = torch_linear(self.token)
        self.project = nn.Dense(self.size.width, dtype=self.dtype, kernel_init=init, bias_init=init)
        self.context = Context(self.size, self.rates, self.dtype, self.remat, self.platform)
        self.noise = Noise()

    def __call__(self, x: jax.Array, train: bool, pool: bool = True) -> jax.Array:
        """With `pool=False`, the tokens [N, P, D]."""
        draws = self.noise(train)
        y = self.contextual(self.tokens(x)[1], draws and draws.key)
        self.sow("intermediates", "map", y)
        return y.mean(axis=1, dtype=jnp.float32) if pool else y

    def tokens(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """float32 [N, P, C] twice: what the convolutions make of x [N, T, 12], and its norm."""
        raw = self.tokenizer(x.astype(self.dtype)).astype(jnp.float32)
        fixed = jax.lax.stop_gradient(raw)
        raw = fixed + self.scale * (raw - fixed)
        return raw, self.norm_token(raw)

    def contextual(
        self,
        z: jax.Array,
        key: jax.Array | None,
        masked: jax.Array | None = None,
        stand_in: jax.Array | None = None,
    ) -> jax.Array:
        """The last layer's tokens [N, P, D] of float32 z [N, P, C]; those that `masked` bool [N, P]
        names are replaced by `stand_in` [D] after their projection."""
        y = dropout(self.project(z.astype(self.dtype)), self.rates.layers, key, 1)
        if masked is not None and stand_in is not None:
            y = jnp.where(masked[..., None], stand_in.astype(y.dtype), y)
        return self.context(y, key)


class Noise(nn.Module):
    """See `noise.drawn`."""

    @nn.compact
    def __call__(self, train: bool) -> Draws | None:
        return drawn(self, train)


class Tokenizer(nn.Module):
    """x [N, T, C] -> [N, P, width]: convolutions without bias, padding or overlap, each followed by
    GELU; what does not fill a window is left out."""

    width: int
    strides: tuple[int, ...]
    extractor: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i, stride in enumerate(self.strides):
            N, T, C = x.shape
            name = "conv_stem" if i == 0 else f"conv{i}"
            kernel = Windows(name=name)((stride, C, self.width)).astype(self.dtype)
            x = x[:, : T // stride * stride].reshape(N, T // stride, stride * C)
            x = x @ kernel.reshape(stride * C, self.width)
            if self.extractor == "layer":
                x = _norm(name=f"norm{i}")(x.astype(jnp.float32)).astype(self.dtype)
            elif i == 0:
                x = OverTime(name="norm_stem")(x).astype(self.dtype)
            x = nn.gelu(x, approximate=False)
        return x


class Windows(nn.Module):
    """The kernel, of a shape, of a convolution without overlap; Kaiming's start."""

    @nn.compact
    def __call__(self, shape: tuple[int, int, int]) -> jax.Array:
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
        return self.param("kernel", init, shape, jnp.float32)


class OverTime(nn.Module):
    """GroupNorm with a group for each channel: x [N, P, C], in float32, less its mean over P and
    divided by its deviation."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        C = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (C,))
        bias = self.param("bias", nn.initializers.zeros, (C,))
        x = x.astype(jnp.float32)
        x = x - x.mean(axis=1, keepdims=True)
        variance = jnp.square(x).mean(axis=1, keepdims=True)
        return x * jax.lax.rsqrt(variance + EPSILON) * scale + bias


class Context(nn.Module):
    """The transformer: [N, P, D] -> [N, P, D], in float32."""

    size: Size
    rates: Dropout
    dtype: jnp.dtype
    remat: bool
    platform: str

    @nn.compact
    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        form = "product" if self.platform == "cpu" else "conv"
        position = Positions(self.dtype, form, name="positions")(x)
        x = x + nn.gelu(position, approximate=False)
        x = dropout(_norm(name="norm")(x), self.rates.layers, key, 2)
        kind = nn.remat(Layer) if self.remat else Layer
        for i in range(self.size.layers):
            own = None if key is None else jax.random.fold_in(key, 1000 + i)
            x = kind(self.size, self.rates, self.dtype, name=f"layer{i}")(x, own)
        return x


class Layer(nn.Module):
    """x + attention(x), normalised; then x + MLP(x), normalised."""

    size: Size
    rates: Dropout
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        (N, P, D), size, rates = x.shape, self.size, self.rates
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=nn.initializers.normal(0.02))
        y = x.astype(self.dtype)
        q, k, v = (
            dense(D, name=name)(y).reshape(N, P, size.heads, D // size.heads)
            for name in ("query", "key", "value")
        )
        y = dense(D, name="out")(attention(q, k, v, rates.attention, key).reshape(N, P, D))
        x = _norm(name="norm_attention")(x + dropout(y, rates.layers, key, 1))
        y = nn.gelu(dense(size.mlp, name="mlp")(x.astype(self.dtype)), approximate=False)
        y = dense(D, name="mlp_out")(dropout(y, rates.activation, key, 2))
        return _norm(name="norm_mlp")(x + dropout(y, rates.layers, key, 3))


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, rate: float, key: jax.Array | None
) -> jax.Array:
    """Scaled dot-product attention of [N, P, heads, dim]: the fused primitive, which has no dropout
    of its weights; where that is drawn, it is written out."""
    if key is None or not rate:
        return jax.nn.dot_product_attention(q, k, v)
    logits = jnp.einsum("nqhd,nkhd->nhqk", q, k).astype(jnp.float32) / math.sqrt(q.shape[-1])
    weight = dropout(jax.nn.softmax(logits, axis=-1), rate, key, 4)
    return jnp.einsum("nhqk,nkhd->nqhd", weight.astype(v.dtype), v)


class Positions(nn.Module):
    """Where a token stands, from its neighbours: a convolution in groups, [N, P, D] -> [N, P, D].

    Its weight is normalised for each tap, over channels in and out: w_k = g_k v_k / ||v_k||. Padded
    by half its taps on both sides it would give one token more than it was given: the last is
    dropped.

    Attributes:
      form: "conv", or "product": the same by products of matrices alone, which a CPU does faster
        than a convolution in groups, and its gradient all the more.
    """

    dtype: jnp.dtype
    form: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        P, D = x.shape[1:]
        width = D // GROUPS
        init = nn.initializers.normal(math.sqrt(4 / (TAPS * D)))
        v = self.param("kernel", init, (TAPS, width, D))
        g = self.param("scale", lambda _: _length(v))
        bias = self.param("bias", nn.initializers.zeros, (D,))
        w = (v * (g / _length(v))[:, None, None]).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.form == "conv":
            y = jax.lax.conv_general_dilated(
                x,
                w,
                (1,),
                [(TAPS // 2, TAPS // 2)],
                dimension_numbers=("NWC", "WIO", "NWC"),
                feature_group_count=GROUPS,
            )[:, :P]
        else:
            y = self.product(x, w)
        return y + bias.astype(self.dtype)

    def product(self, x: jax.Array, w: jax.Array) -> jax.Array:
        """In the frequency domain, whose transforms are products with cosines and sines."""
        (N, P, D), width = x.shape, x.shape[-1] // GROUPS
        L = P + TAPS // 2 + (P + TAPS // 2) % 2  # what wraps around meets zeros
        frequency, scale = np.arange(L // 2 + 1), np.full(L // 2 + 1, 2 / L)
        scale[[0, -1]] = 1 / L
        cosine, sine = _waves(frequency, np.arange(P), L)
        tap_cosine, tap_sine = _waves(frequency, np.arange(TAPS) - TAPS // 2, L)
        x, w = (y.astype(jnp.float32) for y in (x, w))
        real, imaginary = (
            jnp.einsum("fp,npd->fnd", wave, x).reshape(-1, N, GROUPS, width)
            for wave in (cosine, -sine)
        )
        w_real, w_imaginary = (
            jnp.einsum("fk,kid->fid", wave, w).reshape(-1, width, GROUPS, width)
            for wave in (tap_cosine, tap_sine)
        )
        left = jnp.concatenate([real, imaginary], axis=-1)
        right = jnp.concatenate(
            [
                jnp.concatenate([w_real, w_imaginary], axis=-1),
                jnp.concatenate([-w_imaginary, w_real], axis=-1),
            ],
            axis=1,
        )
        y = jnp.einsum("fngi,figo->fngo", left, right)
        y = y.reshape(-1, N, GROUPS, 2, width).transpose(3, 0, 1, 2, 4).reshape(2, -1, N, D)
        back = np.stack([cosine, -sine]) * scale[:, None]
        return jnp.einsum("afp,afnd->npd", back.astype(np.float32), y).astype(self.dtype)


def _waves(frequency: np.ndarray, time: np.ndarray, period: int) -> tuple[np.ndarray, np.ndarray]:
    """float32 [F, T] each: cosine and sine of 2 pi frequency time / period."""
    angle = 2 * np.pi * (np.outer(frequency, time) % period) / period
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def _length(v: jax.Array) -> jax.Array:
    """[K]: the Frobenius norm of each tap of [K, in, out]."""
    return jnp.sqrt(jnp.square(v).sum(axis=(1, 2)))


def _norm(name: str | None = None) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=EPSILON, use_fast_variance=False, dtype=jnp.float32, name=name)


def torch_linear(fan_in: int) -> nn.initializers.Initializer:
    """Uniform between +-1 / sqrt(fan in), as PyTorch's Linear starts its weights and its bias."""
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
