"""The losses of wav2vec 2.0 and CMSC, and the quantizer's gradient, against float64 NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import approx_fprime

from ecg_jax.losses import masked_nce
from ecg_jax.models.quantizer import CODES, GROUPS, Quantizer, temperature
from ecg_jax.runtime import parallel

N, M, D, K = 8, 4, 3, 6
RNG = np.random.default_rng(0)
PAIR = RNG.standard_normal((2, N, M, D))
TOKEN_CODES = RNG.integers(0, 2, (N, M, 2))
OTHERS = RNG.integers(0, M - 1, (N, M, K))
OTHERS += np.arange(M)[:, None] <= OTHERS
SEGMENTS = RNG.standard_normal((2, N, D))
SAME = np.array([0, 1, 2, 2, 3, 4, 5, 5])


def cosine(a, b):
    return a @ b / max(np.linalg.norm(a), 1e-8) / max(np.linalg.norm(b), 1e-8)


def local_oracle(c, q):
    total = 0.0
    for n in range(N):
        for m in range(M):
            logits = [cosine(c[n, m], q[n, m]) / 0.1]
            for k in OTHERS[n, m]:
                if (TOKEN_CODES[n, k] != TOKEN_CODES[n, m]).any():
                    logits.append(cosine(c[n, m], q[n, k]) / 0.1)
            total += np.log(np.exp(logits).sum()) - logits[0]
    return total / (N * M)


def cmsc_oracle(a, b, form, same=SAME, lengths=None):
    """`lengths` of a's and b's rows, where their gradient is not taken."""
    la, lb = lengths or [np.linalg.norm(x, axis=1) for x in (a, b)]
    a, b = a / la[:, None], b / lb[:, None]
    if form == "paper":
        z, label, terms = np.concatenate([a, b]), np.tile(same, 2), []
        for i in range(len(z)):
            others = [j for j in range(len(z)) if j != i]
            norm = np.log(sum(np.exp(z[i] @ z[j] / 0.1) for j in others))
            terms += [norm - z[i] @ z[j] / 0.1 for j in others if label[i] == label[j]]
        return np.mean(terms)
    s, rows, columns = a @ b.T / 0.1, [], []
    for i, j in np.argwhere(same[:, None] == same):
        rows.append(np.log(np.exp(s[i]).sum()) - s[i, j])
        columns.append(np.log(np.exp(s[:, j]).sum()) - s[i, j])
    return (np.mean(rows) + np.mean(columns)) / 2


def check(devices, run, pair, oracle, rows=()):
    """Value and both gradients of run(a, b, *rows), its arguments spread over the devices."""
    sharding = parallel.by_record(parallel.make_mesh(jax.devices()[:devices]))
    a, b = (parallel.put(x.astype(np.float32), sharding) for x in pair)
    rest = [parallel.put(np.asarray(x, np.int32), sharding) for x in rows]
    value, gradient = jax.jit(jax.value_and_grad(run, (0, 1)))(a, b, *rest)
    np.testing.assert_allclose(value, oracle(*pair), rtol=1e-5)
    numeric = approx_fprime(pair.ravel(), lambda x: oracle(*x.reshape(pair.shape)), 1e-7)
    np.testing.assert_allclose(np.stack(gradient), numeric.reshape(pair.shape), atol=2e-5)


@pytest.mark.parametrize("devices", [1, 8])
def test_local(devices):
    def run(c, q, codes, others):
        return masked_nce.masked_nce(c, q, codes, others)[0]

    check(devices, run, PAIR, local_oracle, (TOKEN_CODES, OTHERS))


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("form", ["corrected", "code", "paper"])
def test_adjacent_segments(devices, form):
    fixed = None
    if form == "code":
        fixed = [np.linalg.norm(x, axis=1) for x in SEGMENTS]
    oracle = functools.partial(cmsc_oracle, form=form, lengths=fixed)

    def run(a, b, same):
        return masked_nce.adjacent_segments(a, b, same, form)

    check(devices, run, SEGMENTS, oracle, (SAME,))


def test_groups_meet_among_themselves():
    a, b = SEGMENTS.astype(np.float32)
    found = masked_nce.adjacent_segments(a, b, jnp.asarray(SAME), group=4)
    parts = [(a[i : i + 4], b[i : i + 4], SAME[i : i + 4]) for i in (0, 4)]
    wanted = [cmsc_oracle(x, y, "corrected", same) for x, y, same in parts]
    np.testing.assert_allclose(found, np.mean(wanted), rtol=1e-5)


def test_at_random_the_losses_are_logarithms_of_the_candidates():
    rng = np.random.default_rng(1)
    c, q = rng.standard_normal((2, 4, 200, 256)).astype(np.float32)
    codes = jnp.arange(800).reshape(4, 200, 1)
    others = (np.arange(200)[:, None] + 1 + np.arange(100)) % 200
    value, accuracy = masked_nce.masked_nce(c, q, codes, jnp.broadcast_to(others, (4, 200, 100)))
    assert abs(value - np.log(101)) < 0.25 and accuracy < 0.05


def test_a_vector_of_zeros_has_a_finite_gradient():
    a = jnp.zeros((4, D))
    gradient = jax.jit(jax.grad(masked_nce.adjacent_segments))(a, a + 1, jnp.arange(4))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("devices", [1, 8])
def test_diversity(devices):
    logits = RNG.standard_normal((N, 2, 2, 5))

    def oracle(x):
        p = np.exp(x) / np.exp(x).sum(-1, keepdims=True)
        p = p.reshape(-1, 2, 5).mean(axis=0)
        return (10 - sum(np.exp(-(row * np.log(row + 1e-7)).sum()) for row in p)) / 10

    sharding = parallel.by_record(parallel.make_mesh(jax.devices()[:devices]))
    on = parallel.put(logits.astype(np.float32), sharding)
    value, gradient = jax.jit(jax.value_and_grad(masked_nce.diversity))(on)
    np.testing.assert_allclose(value, oracle(logits), rtol=1e-5)
    numeric = approx_fprime(logits.ravel(), lambda x: oracle(x.reshape(logits.shape)), 1e-7)
    np.testing.assert_allclose(gradient, numeric.reshape(logits.shape), atol=1e-5)


def test_quantizer_is_hard_forward_and_soft_backward():
    """Of weights w on what was chosen, the gradient is that of w . codebook' softmax(noisy)."""
    rng, tau = np.random.default_rng(2), 1.7
    u, noise = rng.standard_normal((3, 4)), rng.gumbel(size=(3, GROUPS, CODES))
    book, kernel = rng.random((GROUPS, CODES, 128)), rng.standard_normal((4, GROUPS * CODES))
    w = rng.standard_normal((3, 256))
    params = {"codebook": book, "logits": {"kernel": kernel, "bias": np.zeros(GROUPS * CODES)}}
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)

    def noisy(u):
        return ((u @ kernel).reshape(3, GROUPS, CODES) + noise) / tau

    def soft(u):
        x = np.exp(noisy(u) - noisy(u).max(-1, keepdims=True))
        mixed = np.einsum("ngv,gvd->ngd", x / x.sum(-1, keepdims=True), book)
        return (mixed.reshape(3, 256) * w).sum()

    def ours(u):
        made = Quantizer().apply({"params": params}, u, tau, jnp.asarray(noise, jnp.float32))
        return jnp.sum(made.vector * w), made

    (_, made), gradient = jax.jit(jax.value_and_grad(ours, has_aux=True))(u.astype(np.float32))
    codes = noisy(u).argmax(-1)
    np.testing.assert_array_equal(made.codes, codes)
    chosen = np.stack([book[g, codes[:, g]] for g in range(GROUPS)], axis=1).reshape(3, 256)
    np.testing.assert_allclose(made.vector, chosen, atol=1e-5)
    numeric = approx_fprime(u.ravel(), lambda x: soft(x.reshape(u.shape)), 1e-6)
    np.testing.assert_allclose(gradient.ravel(), numeric, rtol=1e-3, atol=1e-3)
    quiet = Quantizer().apply({"params": params}, u.astype(np.float32))
    wanted = (u @ kernel).reshape(3, GROUPS, CODES).argmax(-1)
    np.testing.assert_array_equal(quiet.codes, wanted)


def test_temperature_at_the_tabulated_updates():
    table = {0: 2.0, 1_000: 1.9900, 10_000: 1.9025, 36_924: 1.6629, 100_000: 1.2131}
    for updates, tau in (table | {277_259: 0.5, 400_000: 0.5}).items():
        assert float(temperature(updates)) == pytest.approx(tau, abs=1e-4)
        assert float(temperature(updates)) == pytest.approx(max(2 * 0.999995**updates, 0.5), 1e-6)
    assert float(temperature(277_000)) > 0.5
