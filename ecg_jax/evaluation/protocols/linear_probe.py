"""Linear probe: multi-label logistic regression on frozen features, solved to convergence.

For each label, with features x standardised by the training split,

    minimise over w, b:  mean_n log(1 + exp(-+ (w.x_n + b))) + l2/2 |w|^2

(scikit-learn's LogisticRegression with C = 1 / (N l2)). The intercept is not penalised. One l2
serves all labels and is chosen on validation. No random numbers: the same features give the same
probe.
"""

import warnings
from collections.abc import Iterator
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
PATIENCE = 2  # penalties that do no better, and the path ends: the weaker, the longer they take

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
    basis: np.ndarray | None = None,
) -> Probe:
    """Fits the path of `l2s`, from the strongest on, and keeps the best by macro AUROC on
    validation; it ends once `PATIENCE` penalties have not been better.

    Args:
      x_train: float [N, D], features of the training split.
      y_train: bool [N, K], its labels.
      x_val: float [M, D].
      y_val: bool [M, K].
      l2s: positive penalties; of equally good ones the strongest is kept.
      basis: float32 [D, D], see `principal`; None takes that of these training features.

    Raises:
      UserError: shapes that do not fit, features not finite, nothing to fit or to choose by.
    """
    x_train, y_train = features.checked_split("training", x_train, y_train)
    x_val, y_val = features.checked_split("validation", x_val, y_val)
    if not l2s or min(l2s) <= 0:
        raise UserError(f"the penalties must be positive, not {l2s}")
    fitted = features.check_fit(x_train, y_train, x_val, y_val)

    mean, scale = features.statistics(x_train)
    best, path, waited = None, [], 0
    for probe in solutions(x_train, y_train, fitted, mean, scale, l2s, basis):
        auroc = float(metrics.macro(metrics.auroc(y_val, predict(probe, x_val))))
        if best is None or auroc > max(value for _, value in path):
            best, waited = probe, 0
        else:
            waited += 1
        path.append((probe.l2, auroc))
        if waited == PATIENCE:
            break
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


def principal(x: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """float32 [D, D]: a basis of the principal components of features x float32 [N, D] less `mean`
    and over `scale`.

    The probe is solved in such a basis: the penalty does not change under rotation, and the Hessian
    is nearly diagonal there. That of other records serves as well: it takes longer to find than
    many a probe.
    """
    z = (x - mean) / scale
    covariance = (z.T @ z).astype(np.float64) / len(z)
    return np.linalg.eigh(covariance).eigenvectors.astype(np.float32)


def solutions(
    x: np.ndarray,
    y: np.ndarray,
    fitted: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    l2s: tuple[float, ...],
    basis: np.ndarray | None = None,
    *,
    balanced: bool = False,
) -> Iterator[Probe]:
    """Probes from the strongest penalty to the weakest, of features x float32 [N, D] less `mean`
    [D] and over `scale` [D], and labels y bool [N, K] of which `fitted` [K] are not constant.

    Args:
      basis: as of `fit`.
      balanced: positives weigh as much as negatives, in each label (scikit-learn's "balanced").
    """
    if basis is None:
        basis = principal(x, mean, scale)
    z = jnp.matmul(_standardise(x, mean, scale), basis, precision=_PRECISION)
    labels = jnp.asarray(y[:, fitted], jnp.float32)
    prevalence = labels.mean(axis=0)
    weight, log_odds = jnp.ones((1, 1)), jnp.log(prevalence / (1 - prevalence))
    if balanced:
        weight = jnp.where(labels > 0, 0.5 / prevalence, 0.5 / (1 - prevalence))
        log_odds = jnp.zeros_like(log_odds)
    solution = jnp.zeros((z.shape[1] + 1, labels.shape[1])).at[-1].set(log_odds)
    for l2 in sorted(l2s, reverse=True):
        for _ in range(MAX_ROUNDS):
            solution, gradient = _solve(solution, z, labels, weight, l2)
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
        yield _full_probe(mean, scale, np.asarray(kernel), np.asarray(solution[-1]), fitted, l2)


@jax.jit
def _solve(
    start: jax.Array, z: jax.Array, y: jax.Array, record_weight: jax.Array, l2: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
    """L-BFGS (Nocedal and Wright 2006, algorithm 7.5) over all labels at once.

    The variables are scaled by the diagonal of the Hessian at the start.

    Args:
      start: [D + 1, K], kernel and intercept to start from.
      z: [N, D], centred features in their principal components.
      y: [N, K], 0 or 1.
      record_weight: [N, K] or [1, 1], of each record in the loss of each label.
      l2: the penalty.

    Returns:
      The solution [D + 1, K], and the largest gradient norm of a label, scaled by the Hessian's
      diagonal at the solution.
    """
    penalty = jnp.full((len(start), 1), l2).at[-1].set(0.0)
    root = _root_curvature(start, z, record_weight, penalty)

    def loss(scaled):
        weight = scaled / root
        logits = _logits(weight[:-1], weight[-1], z)
        fit = record_weight * optax.sigmoid_binary_cross_entropy(logits, y)
        return (fit.mean(axis=0) + (penalty * weight**2).sum(axis=0) / 2).sum()

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
    gradient = jax.grad(loss)(scaled) * root / _root_curvature(solution, z, record_weight, penalty)
    return solution, _largest(gradient)


def _root_curvature(
    weight: jax.Array, z: jax.Array, record_weight: jax.Array, penalty: jax.Array
) -> jax.Array:
    """Square root of the Hessian's diagonal [D + 1, K]."""
    p = jax.nn.sigmoid(_logits(weight[:-1], weight[-1], z))
    ones = jnp.ones((len(z), 1))
    squares, each = jnp.hstack([z, ones]) ** 2, record_weight * p * (1 - p)
    return jnp.sqrt(jnp.matmul(squares.T, each, precision=_PRECISION) / len(z) + penalty)


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
