import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures import metrics
from ecg_jax.evaluation.protocols import knn


def sample(n, seed, width=16, prevalence=(0.5, 0.3, 0.1)):
    """Features of different scales, and labels that depend on them."""
    weight = np.random.default_rng(9).normal(size=(width, len(prevalence)))
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width))
    logit = x @ weight + rng.logistic(size=(n, len(prevalence)))
    cut = [np.quantile(c, 1 - p) for c, p in zip(logit.T, prevalence, strict=True)]
    return (x * np.logspace(-2, 2, width) + 5).astype(np.float32), logit > cut


@pytest.fixture(scope="module")
def data():
    return *sample(400, 0), *sample(300, 1)


def oracle(x_train, y_train, x, k):
    scaler = StandardScaler().fit(x_train.astype(float))
    search = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute")
    search.fit(scaler.transform(x_train.astype(float)))
    distance, nearest = search.kneighbors(scaler.transform(x.astype(float)))
    weight = 1 - distance
    return (weight[:, :, None] * y_train[nearest]).sum(axis=1) / weight.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_scores_agree_with_scikit_learns_neighbours(data, k):
    x, y, x_val, y_val = data
    model = knn.fit(x, y, x_val, y_val, ks=(k,))
    scores = knn.predict(model, x_val)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, oracle(x, y, x_val, k), atol=1e-5)


def test_k_is_the_best_on_validation(data):
    x, y, x_val, y_val = data
    model = knn.fit(x, y, x_val, y_val)
    assert [k for k, _ in model.path] == list(knn.KS)
    for k, auroc in model.path:
        alone = knn.fit(x, y, x_val, y_val, ks=(k,))
        expected = metrics.macro(metrics.auroc(y_val, knn.predict(alone, x_val)))
        assert auroc == pytest.approx(expected, abs=1e-12)
    best = max(auroc for _, auroc in model.path)
    assert model.k == max(k for k, auroc in model.path if auroc == best)
    assert best > 0.8 > model.path[0][1]


def test_of_equally_good_ks_the_largest_is_taken():
    y = np.repeat([True, False], 20)[:, None]
    x = np.where(y, 1.0, -1.0) * np.ones((40, 3))
    assert knn.fit(x, y, x, y, ks=(5, 1, 10)).k == 10


def test_units_of_the_features_do_not_matter(data):
    x, y, x_val, y_val = data
    scale = np.logspace(-3, 3, x.shape[1]).astype(np.float32)
    first, second = knn.fit(*data), knn.fit(x * scale + 1, y, x_val * scale + 1, y_val)
    a, b = knn.predict(first, x_val), knn.predict(second, x_val * scale + 1)
    np.testing.assert_allclose(a, b, atol=5e-3)


def test_ks_beyond_the_training_records_are_left_out(data):
    x, y, x_val, y_val = data
    model = knn.fit(x[:60], y[:60], x_val, y_val)
    assert [k for k, _ in model.path] == [1, 5, 10, 20, 50]


def test_records_in_parts_are_the_records_together(data, monkeypatch):
    x_val = data[2]
    model = knn.fit(*data)
    whole = knn.predict(model, x_val)
    monkeypatch.setattr(knn, "_ROWS", 7)
    np.testing.assert_allclose(knn.predict(model, x_val), whole, atol=1e-6)
    assert knn.predict(model, x_val[:0]).shape == (0, 3)


def test_labels_that_are_constant_in_training_have_no_score(data):
    x, y, x_val, y_val = data
    y = np.column_stack([np.zeros(len(y), bool), y[:, 0], np.ones(len(y), bool)])
    model = knn.fit(x, y, x_val, y_val)
    np.testing.assert_array_equal(model.fitted, [False, True, False])
    missing = np.isnan(knn.predict(model, x_val))
    assert missing[:, [0, 2]].all()
    assert not missing[:, 1].any()


def test_a_record_without_direction_has_the_first_neighbours_share():
    x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    y = np.array([[True], [True], [False], [False]])
    model = knn.fit(x, y, x, y, ks=(3,))
    np.testing.assert_allclose(knn.predict(model, np.zeros((1, 2))), [[2 / 3]], atol=1e-6)
    # No neighbour on this side: all k weigh alike, and the share is finite.
    model = knn.fit(x[:2], np.array([[True], [False]]), x, y, ks=(2,))
    np.testing.assert_allclose(knn.predict(model, np.array([[0.0, 3.0]])), [[0.5]], atol=1e-6)


def test_constant_features_are_dropped(data):
    x, y, x_val, y_val = data
    wild = np.random.default_rng(0).normal(size=(len(x_val), 1)).astype(np.float32)
    wider = np.hstack([x, np.ones((len(x), 1), np.float32)]), y, np.hstack([x_val, wild]), y_val
    np.testing.assert_allclose(
        knn.predict(knn.fit(*wider), wider[2]), knn.predict(knn.fit(*data), x_val), atol=1e-5
    )


def test_wrong_input_is_refused(data):
    x, y, x_val, y_val = data
    broken = x_val.copy()
    broken[3, 0] = np.inf
    with pytest.raises(UserError, match="validation split's features are not finite in 1 of 300"):
        knn.fit(x, y, broken, y_val)
    with pytest.raises(UserError, match="do not fit"):
        knn.fit(x, y[:-1], x_val, y_val)
    with pytest.raises(UserError, match="differ in their features or labels"):
        knn.fit(x, y, x_val, y_val[:, :2])
    with pytest.raises(UserError, match="no label has positives and negatives"):
        knn.fit(x, y, x_val, np.zeros_like(y_val))
    with pytest.raises(UserError, match="features are all constant"):
        knn.fit(np.ones_like(x), y, x_val, y_val)
    for ks in ((), (0, 5), (401,)):
        with pytest.raises(UserError, match="k must be between 1 and the 400 training records"):
            knn.fit(x, y, x_val, y_val, ks=ks)
    with pytest.raises(UserError, match="the neighbours have 16 features, not 5"):
        knn.predict(knn.fit(*data), x[:, :5])
