"""A 2-D map of embeddings: exact t-SNE from the principal components, without random numbers.

van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 9 (2008): equations 1-5, with early
exaggeration. Distances between far groups mean little in such a map.
"""

import numpy as np

from ecg_jax.errors import UserError

MOST = 2000  # records: time and memory grow with their square


def pca(x: np.ndarray, dim: int = 2) -> np.ndarray:
    """First principal components, float64 [N, dim], of x [N, D]; the largest loading positive.

    Raises:
      UserError: not a matrix of finite numbers, or fewer than 2 records.
    """
    x = np.asarray(x, np.float64)
    if x.ndim != 2 or len(x) < 2 or not np.isfinite(x).all():
        raise UserError(f"a map needs at least 2 records of finite features, not {x.shape}")
    centred = x - x.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)  # by rising variance
    axes = axes.T[::-1][:dim]
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    mapped = centred @ axes.T
    return np.pad(mapped, ((0, 0), (0, dim - mapped.shape[1])))


def tsne(x: np.ndarray, perplexity: float = 30.0, steps: int = 200) -> np.ndarray:
    """Map float64 [N, 2] of features x [N, D], at most `MOST` of them.

    Raises:
      UserError: as `pca`; too many records.
    """
    if len(x) > MOST:
        raise UserError(f"a map of {len(x)} records would take long: choose at most {MOST}")
    z = pca(x, min(50, np.shape(x)[1]))
    y = pca(z)
    if len(z) < 10:
        return y
    p = _affinities(z.astype(np.float32), min(perplexity, len(z) / 4))
    y = (1e-2 / max(float(y.std()), 1e-12) * y).astype(np.float32)
    rate, velocity, gain = max(len(z) / 12, 50), np.zeros_like(y), np.ones_like(y)
    exaggerated = 12 * p
    for step in range(steps):
        early = step < steps // 4
        kernel = _squares_2d(y)  # becomes 1 / (1 + squares), in place: it is the largest array
        kernel += 1
        np.reciprocal(kernel, out=kernel)
        np.fill_diagonal(kernel, 0)
        pull = kernel * (-1 / kernel.sum())
        pull += exaggerated if early else p
        pull *= kernel
        gradient = 4 * (pull.sum(axis=1, keepdims=True) * y - _times(pull, y))
        gain = np.maximum(np.where(gradient * velocity < 0, gain + 0.2, gain * 0.8), 0.01)
        velocity = (0.5 if early else 0.8) * velocity - rate * gain * gradient
        y = y + velocity
    return (y - y.mean(axis=0)).astype(np.float64)


def _affinities(z: np.ndarray, perplexity: float) -> np.ndarray:
    """Symmetric p_ij: Gaussians whose widths, found by bisection, give the perplexity."""
    squares = _squares(z)
    np.fill_diagonal(squares, np.inf)
    squares -= squares.min(axis=1, keepdims=True)
    np.fill_diagonal(squares, 1e30)  # no neighbour of itself, and finite times 0
    low, high = np.zeros((len(z), 1)), np.full((len(z), 1), np.inf)
    precision = 1 / np.maximum(np.median(squares, axis=1, keepdims=True), 1e-12)
    for _ in range(25):
        p = np.exp(squares * -precision.astype(np.float32))
        total = p.sum(axis=1, keepdims=True)
        mean = np.einsum("ij,ij->i", squares, p)[:, None] / total
        wide = np.log(total) + precision * mean > np.log(perplexity)  # entropy
        low, high = np.where(wide, precision, low), np.where(wide, high, precision)
        precision = np.where(np.isinf(high), 2 * precision, (low + high) / 2)
    p = np.exp(squares * -precision.astype(np.float32))
    p /= p.sum(axis=1, keepdims=True)
    return (p + p.T) / (2 * len(z))


def _squares(a: np.ndarray) -> np.ndarray:
    """Squared distances [N, N] between rows."""
    norm = (a * a).sum(axis=1)
    squares = a @ (-2 * a.T)
    squares += norm[:, None]
    squares += norm
    return np.maximum(squares, 0, out=squares)


# What BLAS is slow at: matrices of two columns.
def _squares_2d(y: np.ndarray) -> np.ndarray:
    squares, part = (np.subtract.outer(column, column) for column in y.T)
    squares *= squares
    part *= part
    squares += part
    return squares


def _times(pull: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.stack([pull @ column for column in np.ascontiguousarray(y.T)], axis=1)
