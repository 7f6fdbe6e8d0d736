"""1-D convolutions, written in the form that the backend at hand runs best.

The forms agree to rounding (`tests/models/test_conv1d.py`) and have the same parameter, so a
checkpoint does not know which one made it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

# Winograd's F(4, 3), Lavin and Gray 2016 (arXiv 1509.09308), section 4.3: four outputs of a 3-wide
# filter from six products instead of twelve, y = A [(G w) * (B x)].
B = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
A = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])


FORMS = ("auto", "plain", "winograd")


def resolved(form: str, platform: str) -> str:
    """A form of `FORMS` as it is computed on a platform: "auto" is "winograd" on a CPU."""
    if form != "auto":
        return form
    return "winograd" if platform == "cpu" else "plain"


class Conv(nn.Module):
    """[B, T, C] -> [B, ceil(T / stride), width], no bias, `kernel // 2` zeros at each end.

    Attributes:
      form: one of `FORMS`. "auto": a 3-wide convolution of stride 1 in float32 on a CPU is
        Winograd's, half the arithmetic; others are plain. Where Winograd's does not
        go (another width or stride, bfloat16) it is plain.
    """

    width: int
    kernel: int
    stride: int = 1
    dtype: jnp.dtype = jnp.float32
    form: str = "auto"
    platform: str = "cpu"

    @nn.compact
    def weights(self, inputs: int) -> jax.Array:
        """[kernel, inputs, width] in `dtype`."""
        init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
        w = self.param("kernel", init, (self.kernel, inputs, self.width), jnp.float32)
        return w.astype(self.dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        x, w = x.astype(self.dtype), self.weights(x.shape[-1])
        cpu = self.platform == "cpu"
        if self.kernel == 1 and (cpu or self.stride == 1):
            # With a stride not on a GPU: XLA's tiling of a product of every second sample ends the
            # process where T is even (`Check failed: subdim_size_accumulator`, jax 0.10 and 0.11).
            return matmul(x[:, :: self.stride], w[0])
        form = resolved(self.form, self.platform)
        if form == "winograd" and (self.kernel, self.stride, self.dtype) == (3, 1, jnp.float32):
            return winograd(x, w)
        return plain(x, w, self.stride)


def plain(x: jax.Array, w: jax.Array, stride: int = 1) -> jax.Array:
    """The convolution as XLA has it: x [B, T, C], w [K, C, D]."""
    pad = w.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x, w, (stride,), [(pad, pad)], dimension_numbers=("NWC", "WIO", "NWC")
    )


def beside(x: jax.Array, w: jax.Array, one: jax.Array, stride: int) -> jax.Array:
    """`plain(x, w, stride)` and, in the channels after its own, `plain(x, one, stride)` with a
    kernel of one sample [1, C, D]: as one convolution, which reads x once, and so do its
    gradients."""
    sides = w.shape[0] // 2
    return plain(
        x, jnp.concatenate([w, jnp.pad(one, ((sides, sides), (0, 0), (0, 0)))], -1), stride
    )


def matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """x [B, T, C] @ w [C, D] as one product of two matrices, in the gradient too."""
    return (x.reshape(-1, x.shape[-1]) @ w).reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def winograd(x: jax.Array, w: jax.Array) -> jax.Array:
    """`plain(x, w)` of a 3-wide kernel by F(4, 3), and its gradients by F(4, 3) transposed.

    x float32 [B, T, C], w float32 [3, C, D] -> float32 [B, T, D]. The error is some 4 times that
    of the plain form: 5e-6 of the largest value at C = 512.
    """
    tiles, kernel = _tiles(x), combine(G, list(w))
    y = combine(A, [x_k @ w_k for x_k, w_k in zip(tiles, kernel, strict=True)])
    return _join(y, x.shape)


def _forward(x: jax.Array, w: jax.Array):
    return winograd(x, w), (x, w)


def _backward(saved: tuple[jax.Array, jax.Array], dy: jax.Array):
    x, w = saved
    tiles, kernel = _tiles(x), combine(G, list(w))
    phases = _phases(dy)
    dy_k = combine(A.T, [phases[:, :, j].reshape(-1, dy.shape[-1]) for j in range(4)])
    dw = combine(G.T, [t.T @ d for t, d in zip(tiles, dy_k, strict=True)])
    products = [d @ k.T for d, k in zip(dy_k, kernel, strict=True)]
    before, *dx, after = combine(B.T, [p.reshape(*phases.shape[:2], -1) for p in products])
    dx[0] += _shift(after, 1)
    dx[3] += _shift(before, -1)
    return _join(dx, x.shape), jnp.stack(dw)


winograd.defvjp(_forward, _backward)


def _tiles(x: jax.Array) -> list[jax.Array]:
    """B x: of each tile x[4i - 1] ... x[4i + 4], six arrays [B * ceil(T / 4), C]."""
    p = _phases(x)
    tile = [_shift(p[:, :, 3], 1), *(p[:, :, j] for j in range(4)), _shift(p[:, :, 0], -1)]
    return [t.reshape(-1, x.shape[-1]) for t in combine(B, tile)]


def _phases(x: jax.Array) -> jax.Array:
    """[B, T, C] -> [B, ceil(T / 4), 4, C], zeros at the end."""
    x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % 4), (0, 0)))
    return x.reshape(x.shape[0], -1, 4, x.shape[-1])


def _join(phases: list[jax.Array], shape: tuple[int, ...]) -> jax.Array:
    """Four arrays of B * ceil(T / 4) rows -> [B, T, D], for a shape (B, T, ...)."""
    D = phases[0].shape[-1]
    y = jnp.stack([p.reshape(-1, D) for p in phases], axis=1)
    return y.reshape(shape[0], -1, D)[:, : shape[1]]


def _shift(x: jax.Array, by: int) -> jax.Array:
    """[B, n, C] moved one place along n, later for `by` 1 and earlier for -1; zeros come in."""
    zero = jnp.zeros_like(x[:, :1])
    parts = [zero, x[:, :-1]] if by == 1 else [x[:, 1:], zero]
    return jnp.concatenate(parts, axis=1)


def combine(matrix: np.ndarray, arrays: list[jax.Array]) -> list[jax.Array]:
    """The matrix times a vector of arrays, without the zeros."""
    return [
        sum(float(c) * a for c, a in zip(row, arrays, strict=True) if c)  # type: ignore[misc]
        for row in matrix
    ]
