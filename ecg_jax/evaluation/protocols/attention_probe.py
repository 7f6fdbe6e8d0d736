"""Attention probe: one learned query over a frozen feature map, and a linear head.

The 2026 benchmarks judge frozen encoders so, beside the linear probe (arXiv 2509.25095): where in a
record a finding shows is the probe's to learn, and a mean over ten seconds need not dilute it. For
positions z_p of the map, standardised by channel,

    pooled = sum_p softmax_p(q.z_p) z_p,   logits = W pooled + b

The query starts at zero, which weighs all positions alike, and the head at the linear probe of the
mean; so the probe starts as a linear one, and training may leave it there: the epoch whose weights
are kept is the one with the highest macro AUROC on validation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ecg_jax.evaluation.figures import metrics
from ecg_jax.evaluation.protocols import linear_probe

EPOCHS = 20
BATCH = 256
RATE = 1e-3
_OPTIMIZER = optax.chain(
    optax.scale_by_adam(),
    optax.add_decayed_weights(1e-2, mask={"query": False, "kernel": True, "bias": False}),
)

_ROWS = 512  # records at a time


class Probe(NamedTuple):
    """A fitted probe; see `linear_probe.Probe` for mean, scale and fitted."""

    mean: np.ndarray  # float32 [D]
    scale: np.ndarray  # float32 [D]
    weights: dict[str, np.ndarray]  # query [D], kernel [D, K], bias [K]
    fitted: np.ndarray  # bool [K]
    path: tuple[tuple[int, float], ...]  # (epoch, macro AUROC on validation); 0 is the linear probe


def fit(
    map_train: np.ndarray,
    y_train: np.ndarray,
    map_val: np.ndarray,
    y_val: np.ndarray,
    *,
    seed: int = 0,
) -> Probe:
    """Args:
      map_train: float [N, P, D], in any precision; float16 is what it takes up little space in.
      y_train: bool [N, K].
      map_val: float [M, P, D].
      y_val: bool [M, K].
      seed: of the order of the batches.

    Raises:
      UserError: see `linear_probe.fit`.
    """
    x_train, x_val = (m.mean(axis=1, dtype=np.float32) for m in (map_train, map_val))
    start = linear_probe.fit(x_train, y_train, x_val, y_val)
    mean, scale = channel_statistics(map_train)
    fitted = start.fitted
    # The linear probe is of the mean's own deviations; the map's are larger.
    kernel = start.kernel / start.scale[:, None]
    bias = start.bias + (mean - start.mean) @ kernel
    weights = {
        "query": np.zeros(len(mean), np.float32),
        "kernel": np.where(np.isinf(scale)[:, None], 0, kernel * scale[:, None])[:, fitted],
        "bias": bias[fitted],
    }
    probe = Probe(mean, scale, weights, fitted, ())
    best, path = probe, [(0, _judge(probe, map_val, y_val))]
    steps = max(len(map_train) // BATCH, 1)
    rates = RATE * (1 + np.cos(np.pi * np.arange(EPOCHS * steps) / (EPOCHS * steps))) / 2
    now, moments = weights, _OPTIMIZER.init(weights)
    rng, labels = np.random.default_rng(seed), np.asarray(y_train[:, fitted], np.float32)
    for epoch in range(1, EPOCHS + 1):
        order = rng.permutation(len(map_train))
        for i, rate in enumerate(rates[(epoch - 1) * steps : epoch * steps]):
            rows = np.sort(order[i * BATCH : (i + 1) * BATCH])
            z = map_train[rows], mean, scale
            now, moments = _update(now, moments, *z, labels[rows], rate)
        probe = probe._replace(weights=jax.device_get(now))
        path.append((epoch, _judge(probe, map_val, y_val)))
        if path[-1][1] > max(value for _, value in path[:-1]):
            best = probe
    return best._replace(path=tuple(path))


def predict(probe: Probe, feature_map: np.ndarray) -> np.ndarray:
    """Logits float32 [N, K] of a map [N, P, D]; NaN for labels that were not fitted."""
    scores = np.full((len(feature_map), len(probe.fitted)), np.nan, np.float32)
    for i in range(0, len(feature_map), _ROWS):
        part = feature_map[i : i + _ROWS]
        scores[i : i + _ROWS, probe.fitted] = _logits(probe.weights, part, probe.mean, probe.scale)
    return scores


def channel_statistics(feature_map: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of [N, P, D], as `features.statistics`."""
    count, total = 0, np.zeros(feature_map.shape[-1])
    squares, most = np.zeros_like(total), np.zeros_like(total)
    for i in range(0, len(feature_map), _ROWS):
        part = feature_map[i : i + _ROWS].astype(np.float32).reshape(-1, feature_map.shape[-1])
        count += len(part)
        total = total + part.sum(axis=0, dtype=np.float64)
        squares = squares + (part.astype(np.float64) ** 2).sum(axis=0)
        most = np.maximum(most, np.abs(part).max(axis=0))
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return mean.astype(np.float32), np.where(std <= 1e-6 * most, np.inf, std).astype(np.float32)


@jax.jit
def _update(weights, moments, feature_map, mean, scale, y, rate):
    """One step of AdamW on the sigmoid cross-entropy of a batch [B, P, D], with labels [B, K]."""

    def loss(weights):
        logits = _logits(weights, feature_map, mean, scale)
        return optax.sigmoid_binary_cross_entropy(logits, y).mean(axis=0).sum()

    updates, moments = _OPTIMIZER.update(jax.grad(loss)(weights), moments, weights)
    return jax.tree.map(lambda w, u: w - rate * u, weights, updates), moments


@jax.jit
def _logits(weights, feature_map, mean, scale):
    z = (feature_map.astype(jnp.float32) - mean) / scale
    share = jax.nn.softmax(z @ weights["query"], axis=1)
    return jnp.einsum("np,npd->nd", share, z) @ weights["kernel"] + weights["bias"]


def _judge(probe: Probe, feature_map: np.ndarray, y: np.ndarray) -> float:
    return float(metrics.macro(metrics.auroc(y, predict(probe, feature_map))))
