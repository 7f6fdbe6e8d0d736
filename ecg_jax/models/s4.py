"""S4D, a diagonal state-space encoder for ECGs (Gu et al. 2022, arXiv 2206.11893), in both
directions: long convolutions by FFT, whose kernels are sums of decaying oscillations.

Input, layers and head are as in the benchmarks of PTB-XL that found S4 the best supervised encoder
(Mehari and Strodthoff 2023, arXiv 2211.04205): 4 layers of 512 channels, normalised after each,
gated output. It sees samples, not tokens, so one rate's weights are not another's.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from ecg_jax.models.noise import drawn, dropout
from ecg_jax.runtime import parallel

STRIDE = 32  # samples that a position of the map is the mean of
SLOWEST, FASTEST = 1e-3, 1e-1  # seconds of the continuous system that a sample lasts, at the start


@dataclasses.dataclass(frozen=True)
class Size:
    """Layers, channels, and complex states of each channel and direction."""

    layers: int
    width: int
    states: int


SIZES = {"small": Size(4, 64, 8), "base": Size(4, 512, 32)}


class S4(nn.Module):
    """x [N, T, 12] float -> features float32 [N, width], the mean over the map.

    Attributes:
      size: see `Size`.
      rate: of dropout in training.
      dtype: of activations; kernels and FFTs stay float32.
      remat: keep only the layers' inputs for the backward pass.
    """

    size: Size
    rate: float = 0.1
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, pool: bool = True) -> jax.Array:
        """With `pool=False`, the feature map [N, max(T // 32, 1), width]: means over 32 samples."""
        draws = drawn(self, train)
        x = nn.Dense(self.size.width, dtype=self.dtype, name="conv_stem")(x.astype(self.dtype))
        kind = nn.remat(Block) if self.remat else Block
        for i in range(self.size.layers):
            own = draws and jax.random.fold_in(draws.key, i)
            x = kind(self.size.states, self.rate, self.dtype, name=f"layer{i}")(x, own)
        (N, T, D), P = x.shape, max(x.shape[1] // STRIDE, 1)
        x = x[:, : P * min(STRIDE, T)].reshape(N, P, -1, D).mean(axis=2)
        self.sow("intermediates", "map", x)
        return x.mean(axis=1, dtype=jnp.float32) if pool else x


class Block(nn.Module):
    """x [N, T, H] float32: x + gated convolution, normalised."""

    states: int
    rate: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        T, H = x.shape[1:]
        ahead, back = (Kernel(H, self.states, name=name)(T) for name in ("ahead", "back"))
        skip = self.param("skip", nn.initializers.normal(1.0), (H,))
        y = convolve(x.astype(jnp.float32), ahead, back) + skip * x
        y = dropout(nn.gelu(y, approximate=False), self.rate, key, 1).astype(self.dtype)
        y = nn.glu(nn.Dense(2 * H, dtype=self.dtype, name="out")(y))
        y = x + dropout(y, self.rate, key, 2)
        return nn.LayerNorm(dtype=jnp.float32, use_fast_variance=False, name="norm")(y)


class Kernel(nn.Module):
    """float32 [H, T]: K_t = 2 Re sum_n C_n (e^{dt A_n} - 1) / A_n e^{t dt A_n}, equation 4 with the
    zero-order hold, from A_n = -1/2 + i pi n (S4D-Lin, equation 9)."""

    channels: int
    states: int

    @nn.compact
    def __call__(self, T: int) -> jax.Array:
        H, N = self.channels, self.states
        low, high = math.log(SLOWEST), math.log(FASTEST)
        log_step = self.param("log_step", _between(low, high), (H, 1))
        log_decay = self.param("log_decay", nn.initializers.constant(math.log(0.5)), (H, N))
        pitch = self.param("pitch", lambda _, shape: math.pi * _numbers(shape), (H, N))
        c = self.param("kernel", nn.initializers.normal(math.sqrt(0.5)), (2, H, N))
        a = jax.lax.complex(-jnp.exp(log_decay), pitch)
        step = a * jnp.exp(log_step)
        weight = jax.lax.complex(c[0], c[1]) * (jnp.exp(step) - 1) / a
        powers = jnp.exp(step[..., None] * jnp.arange(T))
        return 2 * jnp.einsum("hn,hnt->ht", weight, powers).real


def _between(low: float, high: float) -> nn.initializers.Initializer:
    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, low, high)

    return init


def _numbers(shape: tuple[int, int]) -> jax.Array:
    return jnp.broadcast_to(jnp.arange(shape[1], dtype=jnp.float32), shape)


def convolve(x: jax.Array, ahead: jax.Array, back: jax.Array) -> jax.Array:
    """y_t = sum_{s <= t} ahead_{t - s} x_s + sum_{s > t} back_{s - t - 1} x_s, in one FFT of twice
    the length: float32 x [N, T, H], kernels [H, T] -> [N, T, H]."""
    T = x.shape[1]
    kernel = jnp.concatenate([ahead, back[:, ::-1]], axis=1)  # the last entry is that of s = t + 1
    spectrum = parallel.by_rows(lambda x: jnp.fft.rfft(x.swapaxes(1, 2), 2 * T), x)
    product = spectrum * jnp.fft.rfft(kernel)
    return parallel.by_rows(lambda s: jnp.fft.irfft(s, 2 * T)[..., :T].swapaxes(1, 2), product)
