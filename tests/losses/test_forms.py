"""Every form of the losses has the value and the gradients of a float64 oracle."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import expit, log_softmax

from benchmarks.loss_memory import temporary_bytes
from ecg_jax.losses import contrastive
from ecg_jax.runtime import parallel

D = 5


SOFTNESS = 0.3


def info_nce(e, t, group, tau, patient=None):
    """ETP equations 3-5, record by record; `group` may be vectors whose likeness counts. Other
    reports of the record's patient are not there."""
    K, total = len(e), 0.0
    for i in range(K):
        alike = group == group[i] if group.ndim == 1 else np.exp(group @ group[i] / SOFTNESS)
        kept = met(alike if group.ndim == 1 else np.arange(K) == i, patient, i)
        target = alike[kept] / alike[kept].sum()
        total -= target @ log_softmax(t[kept] @ e[i] / tau)
        total -= target @ log_softmax(e[kept] @ t[i] / tau)
    return total / (2 * K)


def siglip(e, t, group, tau, bias, patient=None):
    """SigLIP's equation, of the pairs that are there."""
    alike = group[:, None] == group[None]
    losses = -np.log(expit(np.where(alike, 1, -1) * (e @ t.T / tau + bias)))
    kept = [losses[i, met(alike[i], patient, i)].sum() for i in range(len(e))]
    return sum(kept) / len(e)


def met(alike, patient, i):
    """Which records record i meets."""
    return np.full(len(alike), True) if patient is None else (patient != patient[i]) | alike


LOSSES = {
    "info_nce": (info_nce, contrastive.symmetric_info_nce, (0.1,)),
    "sigmoid": (siglip, contrastive.sigmoid, (0.1, -4.0)),
}


def records(K, positives):
    rng = np.random.default_rng(K)
    e, t, text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(3, K, D)))
    groups = {"own": np.arange(K), "group": rng.permutation(np.arange(K) // 3), "soft": text}
    return (e, t), groups[positives]


def patients(K):
    """Four records each, so that some share a report and some do not."""
    return np.random.default_rng(K + 1).permutation(np.arange(K) // 4)


@functools.cache
def expected(loss, K, positives, spared=False):
    """The oracle's value, and its gradients for e, t and the scalars by central differences."""
    oracle, _, scalars = LOSSES[loss]
    (e, t), group = records(K, positives)
    patient = patients(K) if spared else None
    point = np.concatenate([e.ravel(), t.ravel(), scalars])

    def of(flat):
        e, t = flat[: 2 * K * D].reshape(2, K, D)
        return oracle(e, t, group, *flat[2 * K * D :], patient)

    steps = [approx_fprime(point, of, s * 1e-6) for s in (1, -1)]
    return of(point), np.mean(steps, axis=0)


@pytest.mark.parametrize(
    ("loss", "positives"),
    [
        *(("info_nce", kind) for kind in ("own", "group", "soft")),
        *(("sigmoid", kind) for kind in ("own", "group")),
    ],
)
@pytest.mark.parametrize(("devices", "K"), [(1, 16), (8, 16), (8, 32)])
@pytest.mark.parametrize("form", contrastive.FORMS)
def test_value_and_gradients(loss, form, devices, K, positives, spared=False):
    (e, t), group = records(K, positives)
    _, run, scalars = LOSSES[loss]
    mesh = parallel.make_mesh(jax.devices()[:devices])
    sharding = parallel.by_record(mesh)
    e, t = (parallel.put(x.astype(np.float32), sharding) for x in (e, t))
    kind = np.float32 if positives == "soft" else np.int32
    ids = None if positives == "own" else parallel.put(group.astype(kind), sharding)
    options = {"softness": SOFTNESS} if positives == "soft" else {}
    if spared:
        options["patient"] = parallel.put(patients(K).astype(np.int32), sharding)

    def value(e, t, *scalars):
        return run(e, t, *scalars, ids, form, **options)

    arguments = (e, t, *map(jnp.float32, scalars))
    with jax.set_mesh(mesh):
        grad = jax.jit(jax.value_and_grad(value, argnums=tuple(range(len(arguments)))))
        found, gradients = grad(*arguments)
    wanted, gradient = expected(loss, K, positives, spared)
    np.testing.assert_allclose(found, wanted, rtol=2e-6)
    flat = np.concatenate([np.ravel(g) for g in gradients])
    np.testing.assert_allclose(flat, gradient, atol=1e-6 * max(1.0, np.abs(gradient).max()))


@pytest.mark.parametrize(
    ("loss", "positives"),
    [("info_nce", "group"), ("info_nce", "soft"), ("sigmoid", "own")],
)
@pytest.mark.parametrize("form", contrastive.FORMS)
def test_other_reports_of_a_patient_are_no_negatives(loss, form, positives):
    test_value_and_gradients(loss, form, 8, 32, positives, spared=True)


@pytest.mark.parametrize("form", ["gathered", "ring"])
def test_embeddings_far_from_unit_length_do_not_overflow(form):
    (e, t), _ = records(16, "own")
    e, t = (jnp.asarray(100 * x, jnp.float32) for x in (e, t))
    plain = contrastive.symmetric_info_nce(e, t, 0.01)
    assert plain > 1e4  # exp of it is not a float32
    with jax.set_mesh(parallel.make_mesh()):
        run = functools.partial(contrastive.symmetric_info_nce, temperature=0.01, form=form)
        found, gradients = jax.jit(jax.value_and_grad(run, (0, 1)))(e, t)
    np.testing.assert_allclose(found, plain, rtol=1e-6)
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_ring_takes_a_quarter_of_the_memory_and_not_the_square(loss):
    def used(form, batch):
        return temporary_bytes(loss, form, batch=batch, dim=256, devices=8)

    ring = used("ring", 8192)
    assert ring <= used("plain", 8192) / 4
    assert ring <= 3 * used("ring", 4096)
