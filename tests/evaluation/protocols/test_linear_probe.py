import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures import metrics
from ecg_jax.evaluation.protocols import linear_probe


def sample(n, seed, width=20, prevalence=(0.5, 0.2, 0.03)):
    """Correlated features of very different scales, and labels that depend on them."""
    mixing = np.random.default_rng(99).normal(size=(width, width)) * np.logspace(0, -3, width)
    weight = np.random.default_rng(98).normal(size=(width, len(prevalence)))
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, width))
    logit = hidden @ weight + rng.logistic(size=(n, len(prevalence)))
    cut = [np.quantile(c, 1 - p) for c, p in zip(logit.T, prevalence, strict=True)]
    x = (hidden @ mixing.T + 3) * np.logspace(-2, 2, width)
    return x.astype(np.float32), logit > cut


@pytest.fixture(scope="module")
def data():
    return *sample(600, 0), *sample(300, 1)


@pytest.mark.parametrize("l2", [1.0, 0.01, 1e-4])
def test_coefficients_agree_with_scikit_learn(data, l2):
    x, y, x_val, y_val = data
    probe = linear_probe.fit(x, y, x_val, y_val, l2s=(l2,))
    standard = (x.astype(np.float64) - x.mean(0, dtype=float)) / x.std(0, dtype=float)
    for k in range(y.shape[1]):
        oracle = LogisticRegression(C=1 / (l2 * len(x)), solver="newton-cholesky", tol=1e-10)
        oracle.fit(standard, y[:, k])
        scale = np.abs(oracle.coef_).max()
        np.testing.assert_allclose(probe.kernel[:, k], oracle.coef_[0], atol=2e-3 * scale)
        np.testing.assert_allclose(probe.bias[k], oracle.intercept_[0], atol=2e-3 * scale)


def test_more_features_than_records():
    x, y = sample(40, 2, width=100, prevalence=(0.5,))
    probe = linear_probe.fit(x, y, *sample(60, 3, width=100, prevalence=(0.5,)), l2s=(0.01,))
    standard = (x.astype(np.float64) - x.mean(0, dtype=float)) / x.std(0, dtype=float)
    oracle = LogisticRegression(C=1 / (0.01 * 40), tol=1e-8, max_iter=5000).fit(standard, y[:, 0])
    np.testing.assert_allclose(probe.kernel[:, 0], oracle.coef_[0], atol=1e-3)


def test_the_path_does_not_depend_on_where_it_starts(data):
    x, y, x_val, y_val = data
    warm = linear_probe.fit(x, y, x_val, y_val)
    cold = linear_probe.fit(x, y, x_val, y_val, l2s=(warm.l2,))
    np.testing.assert_allclose(
        linear_probe.predict(warm, x_val), linear_probe.predict(cold, x_val), atol=2e-3
    )


def test_the_penalty_is_the_best_on_validation(data):
    x, y, x_val, y_val = data
    probe = linear_probe.fit(x, y, x_val, y_val)
    tried = [l2 for l2, _ in probe.path]
    assert tried == list(linear_probe.L2S)[: len(tried)]
    best = max(auroc for _, auroc in probe.path)
    assert probe.l2 == next(l2 for l2, auroc in probe.path if auroc == best)
    reached = metrics.macro(metrics.auroc(y_val, linear_probe.predict(probe, x_val)))
    assert reached == pytest.approx(best, abs=1e-12)
    assert best > 0.8


def test_fitting_twice_gives_the_same_bits(data):
    first, second = (linear_probe.fit(*data, l2s=(1.0, 0.01)) for _ in range(2))
    np.testing.assert_array_equal(first.kernel, second.kernel)
    assert first.path == second.path


def test_units_of_the_features_do_not_matter(data):
    x, y, x_val, y_val = data
    probe = linear_probe.fit(x, y, x_val, y_val, l2s=(0.01,))
    other = linear_probe.fit(x * 1024 + 64, y, x_val * 1024 + 64, y_val, l2s=(0.01,))
    np.testing.assert_allclose(probe.kernel, other.kernel, atol=5e-3)


def test_constant_features_are_dropped(data):
    x, y, x_val, y_val = data
    constant = np.full((len(x), 2), 0.1, np.float32)
    constant[::2, 1] = np.nextafter(np.float32(0.1), np.float32(1))
    wild = np.random.default_rng(0).normal(size=(len(x_val), 2)).astype(np.float32)
    probe = linear_probe.fit(
        np.hstack([x, constant]), y, np.hstack([x_val, wild]), y_val, l2s=(0.01,)
    )
    without = linear_probe.fit(x, y, x_val, y_val, l2s=(0.01,))
    assert np.isinf(probe.scale[-2:]).all()
    np.testing.assert_allclose(
        linear_probe.predict(probe, np.hstack([x_val, wild])),
        linear_probe.predict(without, x_val),
        atol=2e-3,
    )


def test_labels_without_both_kinds_are_left_out(data):
    x, y, x_val, y_val = data
    pad = np.zeros((len(x), 1), bool), np.ones((len(x), 1), bool)
    y_more = np.hstack([pad[0], y, pad[1]])
    more = np.hstack([y_val[:, :1], y_val, y_val[:, :1]])
    probe = linear_probe.fit(x, y_more, x_val, more, l2s=(0.01,))
    np.testing.assert_array_equal(probe.fitted, [False, True, True, True, False])
    logits = linear_probe.predict(probe, x_val)
    assert np.isnan(logits[:, [0, 4]]).all()
    plain = linear_probe.fit(x, y, x_val, y_val, l2s=(0.01,))
    np.testing.assert_allclose(logits[:, 1:4], linear_probe.predict(plain, x_val), atol=1e-5)
    np.testing.assert_allclose(probe.path, plain.path, atol=1e-4)


def test_stopping_early_is_said(data, monkeypatch):
    monkeypatch.setattr(linear_probe, "MAX_STEPS", 2)
    monkeypatch.setattr(linear_probe, "MAX_ROUNDS", 2)
    linear_probe._solve.clear_cache()
    with pytest.warns(UserWarning, match="stopped at gradient"):
        linear_probe.fit(*data, l2s=(0.001,))
    linear_probe._solve.clear_cache()


def test_wrong_input_is_refused(data):
    x, y, x_val, y_val = data
    broken = x.copy()
    broken[4, 2] = np.nan
    with pytest.raises(UserError, match="training split's features are not finite in 1 of 600"):
        linear_probe.fit(broken, y, x_val, y_val)
    with pytest.raises(UserError, match="do not fit"):
        linear_probe.fit(x, y[:-1], x_val, y_val)
    with pytest.raises(UserError, match="differ in their features or labels"):
        linear_probe.fit(x, y, x_val[:, :-1], y_val)
    with pytest.raises(UserError, match="no label has positives and negatives"):
        linear_probe.fit(x, y, x_val, np.zeros_like(y_val))
    with pytest.raises(UserError, match="validation split: labels must be true or false"):
        linear_probe.fit(x, y, x_val, y_val * 2)
    with pytest.raises(UserError, match="positive"):
        linear_probe.fit(x, y, x_val, y_val, l2s=(0.0,))
    probe = linear_probe.fit(x, y, x_val, y_val, l2s=(1.0,))
    with pytest.raises(UserError, match="takes 20 features"):
        linear_probe.predict(probe, x[:, :5])


def test_the_path_ends_once_weaker_penalties_are_no_better(data, monkeypatch):
    x, y, x_val, y_val = data
    worse = iter([0.7, 0.8, 0.8, 0.75, 0.9])  # the fourth is the second that is not better
    monkeypatch.setattr(metrics, "auroc", lambda *_: np.array([next(worse)]))
    probe = linear_probe.fit(x, y, x_val, y_val)
    assert [value for _, value in probe.path] == [0.7, 0.8, 0.8, 0.75]
    assert probe.l2 == linear_probe.L2S[1]


def test_balanced_weights_agree_with_scikit_learn(data):
    x, y, _, _ = data
    mean, scale = x.mean(axis=0), x.std(axis=0)
    fitted = np.ones(y.shape[1], bool)
    (probe,) = linear_probe.solutions(x, y, fitted, mean, scale, (0.01,), balanced=True)
    for k in range(y.shape[1]):
        oracle = LogisticRegression(C=1 / (0.01 * len(x)), class_weight="balanced", tol=1e-8)
        oracle.set_params(solver="newton-cholesky")
        oracle.fit((x.astype(np.float64) - mean) / scale, y[:, k])
        size = np.abs(oracle.coef_).max()
        np.testing.assert_allclose(probe.kernel[:, k], oracle.coef_[0], atol=5e-3 * size)


def test_any_basis_gives_the_same_probe(data):
    x, y, x_val, y_val = data
    plain = linear_probe.fit(x, y, x_val, y_val)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(x.shape[1],) * 2))[0]
    other = linear_probe.fit(x, y, x_val, y_val, basis=basis.astype(np.float32))
    expected = linear_probe.predict(plain, x_val)
    np.testing.assert_allclose(linear_probe.predict(other, x_val), expected, atol=5e-3)
