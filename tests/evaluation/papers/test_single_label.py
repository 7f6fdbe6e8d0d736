import numpy as np
import pytest
from sklearn import metrics as sk

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures import results
from ecg_jax.evaluation.papers import single_label

CLASSES = ("NORM", "MI", "STTC", "CD", "HYP")
WHERE = dict(task="super", dataset="ptb_xl", split="test", protocol="zero_shot", encoder="trained")


def sample(seed=0, n=300, prevalence=(0.5, 0.2, 0.15, 0.1, 0.05), gap=1.5, levels=None):
    """One label per record, and scores that depend on it (of few distinct values if `levels`)."""
    rng = np.random.default_rng(seed)
    y = np.eye(len(prevalence), dtype=bool)[rng.choice(len(prevalence), n, p=prevalence)]
    score = rng.normal(size=y.shape) + gap * y
    if levels:
        score = np.round(score * levels) / levels
    return y, score, np.array([f"p{i // 2}" for i in range(n)])


def find(rows, label, metric):
    (row,) = [r for r in rows if (r["label"], r["metric"]) == (label, metric)]
    return row


def mets(y, score, patient, draws=200):
    names = [f"c{k}" for k in range(y.shape[1])]
    return single_label.mets_rows(y, score, patient, classes=names, draws=draws, **WHERE)


def oracle(y, predicted, **options):
    """scikit-learn's figures: its macro means, and per class."""
    true = y.argmax(axis=1)
    kind = dict(zero_division=0, **options)
    macro = {
        "accuracy": sk.accuracy_score(true, predicted),
        "precision": sk.precision_score(true, predicted, average="macro", **kind),
        "recall": sk.recall_score(true, predicted, average="macro", **kind),
        "f1": sk.f1_score(true, predicted, average="macro", **kind),
    }
    per_class = sk.precision_recall_fscore_support(
        true, predicted, labels=range(y.shape[1]), zero_division=0
    )
    return macro, dict(zip(("precision", "recall", "f1"), per_class[:3], strict=True))


def test_only_records_with_one_label_are_kept():
    y = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]])
    np.testing.assert_array_equal(single_label.only_one(y), [0, 3])
    assert len(single_label.only_one(y[:0])) == 0
    with pytest.raises(UserError, match="true or false"):
        single_label.only_one(y * 2)


@pytest.mark.parametrize("seed", range(20))
def test_mets_figures_agree_with_scikit_learn(seed):
    """Ties, classes that are absent, never predicted, or both, and sets of one record."""
    rng = np.random.default_rng(seed)
    n = [1, 2, 10, 300][seed % 4]
    y, score, patient = sample(seed, n, levels=[None, 1, 0.3][seed % 3])
    y, score = np.insert(y, 1, False, axis=1), np.insert(score, 1, -9.0, axis=1)
    score[:, rng.integers(6)] -= 9  # this one is not predicted
    predicted = single_label.predict(score)
    np.testing.assert_array_equal(predicted, score.argmax(axis=1))
    macro, per_class = oracle(y, predicted)
    rows = mets(y, score, patient, draws=20)
    for metric, value in macro.items():
        assert abs(find(rows, "macro", metric)["value"] - value) < 1e-6
    for metric, values in per_class.items():
        for k, value in enumerate(values):
            row = find(rows, f"c{k}", metric)
            if row["note"] == "neither present nor predicted":
                assert np.isnan(row["value"])
                assert not y[:, k].any()
                assert k not in predicted
            else:
                assert abs(row["value"] - value) < 1e-6


def test_one_class_alone():
    y = np.repeat([[False, True]], 8, axis=0)
    rows = mets(y, np.tile([0.0, 1.0], (8, 1)), np.arange(8).astype(str))
    assert all(find(rows, "macro", m)["value"] == 1 for m in single_label.METS_METRICS)
    rows = mets(y, np.tile([1.0, 0.0], (8, 1)), np.arange(8).astype(str))
    assert all(find(rows, "macro", m)["value"] == 0 for m in single_label.METS_METRICS)


def test_rows_of_mets_hold_the_figures():
    y, score, patient = sample()
    rows = mets(y, score, patient)
    assert len(rows) == 4 + 5 * 3
    for row in rows:
        assert tuple(row)[: len(results.COLUMNS)] == results.COLUMNS
        assert (row["rule"], row["fraction"], row["condition"]) == ("paper", None, "")
        assert row["ci_low"] < row["value"] < row["ci_high"]
        assert row["n"] == 300
    assert find(rows, "macro", "f1")["positives"] == 5
    assert find(rows, "c1", "f1")["positives"] == y[:, 1].sum()
    assert [find(rows, "macro", m)["value"] for m in single_label.METS_METRICS] == pytest.approx(
        list(oracle(y, score.argmax(axis=1))[0].values()), abs=1e-12
    )


def test_intervals_are_over_draws_of_patients():
    y, score, patient = sample()
    predicted = score.argmax(axis=1)
    rng = np.random.default_rng(5)
    names = np.unique(patient)
    own, true, drawn = [np.flatnonzero(patient == p) for p in names], y.argmax(axis=1), []
    for _ in range(500):
        rows = np.concatenate([own[i] for i in rng.integers(0, len(names), len(names))])
        figures = sk.precision_recall_fscore_support(true[rows], predicted[rows], average="macro")
        drawn.append([(true == predicted)[rows].mean(), *figures[:3]])
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    rows = mets(y, score, patient, draws=2000)
    for i, metric in enumerate(single_label.METS_METRICS):
        row = find(rows, "macro", metric)
        np.testing.assert_allclose((row["ci_low"], row["ci_high"]), (low[i], high[i]), atol=0.02)


def test_intervals_hold_the_truth():
    """Macro figures of 200 patients, against those of very many."""

    def draw(rng, n):
        patient = np.repeat(np.arange(n), rng.integers(1, 4, n))
        y = np.eye(4, dtype=bool)[rng.choice(4, n, p=(0.5, 0.25, 0.15, 0.1))][patient]
        shared = rng.normal(scale=0.7**0.5, size=(n, 4))[patient]
        return y, shared + rng.normal(scale=0.3**0.5, size=y.shape) + 1.5 * y, patient.astype(str)

    y, score, _ = draw(np.random.default_rng(99), 50000)
    truth, rng, held = oracle(y, score.argmax(axis=1))[0], np.random.default_rng(0), np.zeros(4)
    for _ in range(300):
        rows = mets(*draw(rng, 200), draws=200)
        for i, metric in enumerate(single_label.METS_METRICS):
            row = find(rows, "macro", metric)
            held[i] += row["ci_low"] <= truth[metric] <= row["ci_high"]
    assert (held / 300 > 0.92).all()  # standard error 1.3 %
    assert (held / 300 < 0.98).all()


def test_chance_is_the_better_of_two_blind_answers():
    y, _, patient = sample(n=20000)
    rng = np.random.default_rng(0)
    uniform = oracle(y, rng.integers(0, 5, len(y)))
    commonest = oracle(y, np.full(len(y), y.sum(axis=0).argmax()))
    rows = mets(y, rng.normal(size=y.shape), patient, draws=2)
    for metric in single_label.METS_METRICS:
        row = find(rows, "macro", metric)
        pair = uniform[0][metric], commonest[0][metric]
        assert row["chance"] == pytest.approx(max(pair), abs=0.01)
        shown = [float(part.split()[-1]) for part in row["note"].split("; ")[-2:]]
        assert shown == pytest.approx(pair, abs=0.01)
        assert row["value"] == pytest.approx(pair[0], abs=0.01)
        if metric != "accuracy":
            for k in range(5):
                best = max(uniform[1][metric][k], commonest[1][metric][k])
                assert find(rows, f"c{k}", metric)["chance"] == pytest.approx(best, abs=0.02)


def test_a_class_without_score_is_not_predicted():
    score = np.array([[np.nan, 1.0, 2.0], [np.nan, 5.0, 2.0]])
    np.testing.assert_array_equal(single_label.predict(score), [2, 1])
    np.testing.assert_array_equal(single_label.predict(np.ones((2, 3))), [0, 0])  # ties
    assert len(single_label.predict(np.zeros((0, 3)))) == 0
    with pytest.raises(UserError, match="no class has a score"):
        single_label.predict(score * np.nan)
    with pytest.raises(UserError, match="record 1, class 2"):
        single_label.predict(np.array([[0.0, 1.0, 2.0], [0.0, 5.0, np.nan]]))


@pytest.mark.parametrize("levels", [None, 1])
def test_rows_of_etp_hold_scikit_learns_figures(levels):
    y, score, patient = sample(levels=levels)
    y[::7, 0] = y[::7, 1] = True  # two labels
    y[::11] = False
    rows = single_label.etp_rows(y, score, None, patient, classes=CLASSES, draws=50, **WHERE)
    assert {r["metric"] for r in rows} == {"auroc", "accuracy", "f1"}
    assert {(r["rule"], r["fraction"], r["condition"]) for r in rows} == {("paper", None, "")}
    single = y.sum(axis=1) == 1
    y, score = y[single], score[single]
    figures = []
    for k, name in enumerate(CLASSES):
        candidates = np.unique(score[:, k])
        f1s = [sk.f1_score(y[:, k], score[:, k] >= t) for t in candidates]
        best = candidates[np.flatnonzero(np.array(f1s) > max(f1s) - 1e-12)[-1]]
        expected = {
            "auroc": sk.roc_auc_score(y[:, k], score[:, k]),
            "accuracy": sk.accuracy_score(y[:, k], score[:, k] >= best),
            "f1": max(f1s),
        }
        figures.append(list(expected.values()))
        for metric, value in expected.items():
            row = find(rows, name, metric)
            assert row["value"] == pytest.approx(value, abs=1e-6)
            assert row["n"] == single.sum()
            assert "best F1 on these same records" in row["note"]
    for metric, value in zip(expected, np.mean(figures, axis=0), strict=True):
        assert find(rows, "macro", metric)["value"] == pytest.approx(value, abs=1e-6)


def test_etp_names_classes_that_it_leaves_out():
    y, score, patient = sample()
    y[:, 4] &= False
    rows = single_label.etp_rows(y, score, None, patient, classes=CLASSES, draws=20, **WHERE)
    note = find(rows, "macro", "f1")["note"]
    assert note.startswith(f"{y.any(axis=1).sum()} single-label records, thresholds")
    assert note.endswith(". 1 of 5 classes left out: no positive: HYP")
    assert find(rows, "HYP", "auroc")["note"].endswith(". no positive")


def test_etp_with_thresholds_of_other_records():
    y, score, patient = sample()
    threshold = np.quantile(score, 0.8, axis=0)
    rows = single_label.etp_rows(y, score, threshold, patient, classes=CLASSES, draws=20, **WHERE)
    assert "thresholds" not in find(rows, "macro", "f1")["note"]
    single = y.sum(axis=1) == 1
    for k, name in enumerate(CLASSES):
        found = score[single, k] >= threshold[k]
        for metric, judge in (("f1", sk.f1_score), ("accuracy", sk.accuracy_score)):
            expected = judge(y[single, k], found)
            assert find(rows, name, metric)["value"] == pytest.approx(expected, abs=1e-6)


def test_a_threshold_chosen_on_test_flatters():
    """With scores that know nothing, F1 is above that of calling everything positive."""
    rng = np.random.default_rng(0)
    y, _, patient = sample()
    rows = single_label.etp_rows(
        y, rng.normal(size=y.shape), None, patient, classes=CLASSES, draws=2, **WHERE
    )
    chosen = find(rows, "macro", "f1")
    assert chosen["value"] > chosen["chance"]


def test_mets_sets_are_drawn_from_single_label_records():
    y, _, _ = sample(n=3000)
    y[::3, 0] = y[::3, 1] = True
    names = np.array([f"r{i:04}" for i in range(3000)])
    single = single_label.only_one(y)
    chosen = single_label.mets_set(y, names)
    assert len(set(chosen.rows)) == 1000
    assert set(chosen.rows) < set(single)
    assert (np.diff(chosen.rows) > 0).all()
    assert chosen.note == f"1,000 single-label records of {len(single):,}"
    other = single_label.mets_set(y, names, seed=1).rows
    assert 300 < len(set(other) & set(chosen.rows)) < 700
    order = np.random.default_rng(0).permutation(3000)
    shuffled = single_label.mets_set(y[order], names[order]).rows
    np.testing.assert_array_equal(np.sort(order[shuffled]), chosen.rows)


def test_a_small_split_gives_all_and_says_so():
    y, _, _ = sample(n=50)
    y[0] = False
    chosen = single_label.mets_set(y, np.arange(50).astype(str))
    np.testing.assert_array_equal(chosen.rows, np.arange(1, 50))
    assert chosen.note == "49 single-label records, fewer than METS's 1,000"


def test_wrong_input_is_refused():
    y, score, patient = sample()
    two = y.copy()
    two[4, :2] = True
    with pytest.raises(UserError, match="1 of 300 records do not have exactly one label"):
        mets(two, score, patient)
    with pytest.raises(UserError, match="0 of 0 records"):
        mets(y[:0], score[:0], patient[:0])
    with pytest.raises(UserError, match="have"):
        mets(y, score, patient[1:])
    with pytest.raises(UserError, match="one class number for each of 300"):
        mets(y, score[1:], patient)
    with pytest.raises(UserError, match="not one of the 5"):
        mets(y, np.c_[score, score.max(axis=1) + 1], patient)
    with pytest.raises(UserError, match="ETP's figures cannot be had"):
        single_label.etp_rows(
            np.zeros_like(y), score, None, patient, classes=CLASSES, draws=2, **WHERE
        )
    with pytest.raises(UserError, match="as many different record_ids"):
        single_label.mets_set(y, np.zeros(300, "U1"))
    with pytest.raises(UserError, match="no single-label test set"):
        single_label.mets_set(np.zeros_like(y), np.arange(300).astype(str))
