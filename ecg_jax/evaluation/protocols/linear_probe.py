"""Linear probe: multi-label logistic regression on frozen features, solved to convergence.

For each label, with features x standardised by the training split,

    minimise over w, b:  mean_n log(1 + exp(-+ (w.x_n + b))) + l2/2 |w|^2

(scikit-learn's LogisticRegression with C = 1 / (N l2)). The intercept is not penalised. One l2
serves all labels and is chosen on validation. No random numbers: the same features give the same
probe.
"""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures import metrics
from ecg_jax.evaluation.protocols import features

# From strong to weak, half a decade apart: each solution starts from the one before.
L2S = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003)

# A label has converged when |H^(-1/2) gradient| is at most this, H being its Hessian's diagonal:
# its loss is then within about TOLERANCE^2 / 2 (nats per record) of the minimum.
TOLERANCE = 1e-4
MAX_STEPS = 100  # before the scaling is renewed
MAX_ROUNDS = 20

# float32 products everywhere: GPUs and TPUs would round to fewer bits by default.
_PRECISION = jax.lax.Precision.HIGHEST


class Probe(NamedTuple):
    """A fitted probe. Labels absent from, or constant in, the training split are not `fitted`."""

    mean: np.ndarray  # float32 [D]
    scale: np.ndarray  # float32 [D]; infinite for a constant feature, which is thereby dropped
    kernel: np.ndarray  # float32 [D, K], for standardised features
    bias: np.ndarray  # float32 [K]; NaN where not fitted
    fitted: np.ndarray  # bool [K]
    l2: float  # the chosen one
    path: tuple[tuple[float, float], ...]  # (l2, macro AUROC on validation)


def fit(
    x_train: np.ndarray,
    y_train: np.ndarray,
    x_val: np.ndarray,
    y_val: np.ndarray,
    l2s: tuple[float, ...] = L2S,
) -> Probe:
    """Fits the whole path of `l2s` and keeps the best by macro AUROC on validation.

    Args:
      x_train: float [N, D], features of the training split.
      y_train: bool [N, K], its labels.
      x_val: float [M, D].
      y_val: bool [M, K].
      l2s: positive penalties; of equally good ones the strongest is kept.

    Raises:
      UserError: shapes that do not fit, features not finite, nothing to fit or to choose by.
    """
    x_train, y_train = features.checked_split("training", x_train, y_train)
    x_val, y_val = features.checked_split("validation", x_val, y_val)
    if not l2s or min(l2s) <= 0:
        raise UserError(f"the penalties must be positive, not {l2s}")
    fitted = features.check_fit(x_train, y_train, x_val, y_val)

    mean, scale = features.statistics(x_train)
    best, path = None, []
    for l2, kernel, bias in _solutions(_standardise(x_train, mean, scale), y_train[:, fitted], l2s):
        probe = _full_probe(mean, scale, kernel, bias, fitted, l2)
        path.append((l2, float(metrics.macro(metrics.auroc(y_val, predict(probe, x_val))))))
        if best is None or path[-1][1] > max(value for _, value in path[:-1]):
            best = probe
    assert best is not None
    return best._replace(path=tuple(path))


def predict(probe: Probe, x: np.ndarray) -> np.ndarray:
    """Logits float32 [N, K] of features [N, D]; NaN for labels that were not fitted.

    Raises:
      UserError: features of another width, or not finite.
    """
    x = features.checked("the", x)
    if x.shape[1] != len(probe.mean):
        raise UserError(f"the probe takes {len(probe.mean)} features, not {x.shape[1]}")
    return np.asarray(_logits(probe.kernel, probe.bias, _standardise(x, probe.mean, probe.scale)))


def _solutions(x: jax.Array, y: np.ndarray, l2s: tuple[float, ...]):
    """Yields (l2, kernel [D, K], bias [K]) from the strongest penalty to the weakest.

    The problem is solved in the basis of the features' principal components: the penalty does not
    change under rotation, and the Hessian is nearly diagonal there.
    """
    covariance = np.asarray(jnp.matmul(x.T, x, precision=_PRECISION), np.float64) / len(x)
    basis = jnp.asarray(np.linalg.eigh(covariance).eigenvectors, jnp.float32)
    z = jnp.matmul(x, basis, precision=_PRECISION)
    labels = jnp.asarray(y, jnp.float32)
    prevalence = labels.mean(axis=0)
    log_odds = jnp.log(prevalence / (1 - prevalence))
    solution = jnp.zeros((z.shape[1] + 1, y.shape[1])).at[-1].set(log_odds)
    for l2 in sorted(l2s, reverse=True):
        for _ in range(MAX_ROUNDS):
            solution, gradient = _solve(solution, z, labels, l2)
            if not gradient > TOLERANCE:
                break
        if not jnp.isfinite(gradient):
            raise FloatingPointError(f"linear probe: l2 = {l2:g} has no finite solution")
        if gradient > TOLERANCE:
            warnings.warn(
                f"linear probe: l2 = {l2:g} stopped at gradient {gradient:.1e} > {TOLERANCE:g}",
                stacklevel=3,
            )
        kernel = jnp.matmul(basis, solution[:-1], precision=_PRECISION)
        yield l2, np.asarray(kernel), np.asarray(solution[-1])


@jax.jit
def _solve(
    start: jax.Array, z: jax.Array, y: jax.Array, l2: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
    """L-BFGS (Nocedal and Wright 2006, algorithm 7.5) over all labels at once.

    The variables are scaled by the diagonal of the Hessian at the start.

    Args:
      start: [D + 1, K], kernel and intercept to start from.
      z: [N, D], centred features in their principal components.
      y: [N, K], 0 or 1.
      l2: the penalty.

    Returns:
      The solution [D + 1, K], and the largest gradient norm of a label, scaled by the Hessian's
      diagonal at the solution.
    """
    penalty = jnp.full((len(start), 1), l2).at[-1].set(0.0)
    root = _root_curvature(start, z, penalty)

    def loss(scaled):
        weight = scaled / root
        logits = _logits(weight[:-1], weight[-1], z)
        fit = optax.sigmoid_binary_cross_entropy(logits, y).mean(axis=0)
        return (fit + (penalty * weight**2).sum(axis=0) / 2).sum()

    solver = optax.lbfgs(memory_size=10)
    value_and_gradient = optax.value_and_grad_from_state(loss)

    def step(carry):
        scaled, state, _, steps = carry
        value, gradient = value_and_gradient(scaled, state=state)
        updates, state = solver.update(
            gradient, state, scaled, value=value, grad=gradient, value_fn=loss
        )
        scaled = scaled + updates
        return scaled, state, _largest(optax.tree.get(state, "grad")), steps + 1

    def unfinished(carry):
        return (carry[2] > TOLERANCE) & (carry[3] < MAX_STEPS)

    scaled = start * root
    initial = scaled, solver.init(scaled), _largest(jax.grad(loss)(scaled)), 0
    scaled, _, _, _ = jax.lax.while_loop(unfinished, step, initial)
    solution = scaled / root
    gradient = jax.grad(loss)(scaled) * root / _root_curvature(solution, z, penalty)
    return solution, _largest(gradient)


def _root_curvature(weight: jax.Array, z: jax.Array, penalty: jax.Array) -> jax.Array:
    """Square root of the Hessian's diagonal [D + 1, K]."""
    p = jax.nn.sigmoid(_logits(weight[:-1], weight[-1], z))
    ones = jnp.ones((len(z), 1))
    squares = jnp.hstack([z, ones]) ** 2
    return jnp.sqrt(jnp.matmul(squares.T, p * (1 - p), precision=_PRECISION) / len(z) + penalty)


def _largest(gradient: jax.Array) -> jax.Array:
    """Norm of the label with the longest gradient."""
    return jnp.linalg.norm(gradient, axis=0).max()


@jax.jit
def _logits(kernel: jax.Array, bias: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.matmul(x, kernel, precision=_PRECISION) + bias


@jax.jit
def _standardise(x: jax.Array, mean: jax.Array, scale: jax.Array) -> jax.Array:
    return (x - mean) / scale


def _full_probe(mean, scale, kernel, bias, fitted, l2) -> Probe:
    """Puts the labels that were not fitted back in their columns."""
    full_kernel = np.zeros((len(mean), len(fitted)), np.float32)
    full_bias = np.full(len(fitted), np.nan, np.float32)
    full_kernel[:, fitted], full_bias[fitted] = kernel, bias
    return Probe(mean, scale, full_kernel, full_bias, fitted, l2, ())
