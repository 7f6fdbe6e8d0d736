import itertools

import numpy as np
import pytest

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures import results
from ecg_jax.evaluation.protocols import retrieval


def sample(seed=0, n=60, texts=25, noise=2.0, missing=0):
    """Records whose embeddings lie around that of their report, which several share."""
    rng = np.random.default_rng(seed)
    text = rng.normal(size=(texts, 8))
    text_id = np.minimum(rng.geometric(0.12, n) - 1, texts - 1)
    ecg = text[text_id] + noise * rng.normal(size=(n, 8))
    text_id[:missing] = -1
    return ecg, text, text_id, np.array([f"p{i // 2}" for i in range(n)])


def find(rows, label, metric):
    (row,) = [r for r in rows if (r["label"], r["metric"]) == (label, metric)]
    return row


def make(sample, **options):
    return retrieval.rows(*sample, dataset="ptb_xl", split="test", encoder="trained", **options)


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_ranks_agree_with_sorting_all_candidates():
    ecg, text, text_id, _ = sample()
    present = sorted(set(text_id))
    found = retrieval.ecg_to_report(ecg, text, text_id)
    assert found.candidates == len(present)
    for i, own in enumerate(text_id):
        order = sorted(present, key=lambda m: -cosine(ecg[i], text[m]))
        assert found.rank[i] == 1 + order.index(own)
    found = retrieval.report_to_ecg(ecg, text, text_id)
    assert found.candidates == len(ecg)
    for i, own in enumerate(text_id):
        order = sorted(range(len(ecg)), key=lambda j: -cosine(text[own], ecg[j]))
        assert found.rank[i] == 1 + [text_id[j] for j in order].index(own)


def test_duplicates_of_a_report_are_hits():
    text = np.eye(3)
    ecg = np.array([[1.0, 0, 0], [0.2, 1, 0], [0, 0, 1]])
    found = retrieval.report_to_ecg(ecg, text, np.array([0, 0, 2]))
    np.testing.assert_array_equal(found.rank, [1, 1, 1])  # record 1 is found through record 0
    assert found.candidates == 3
    assert retrieval.ecg_to_report(ecg, text, np.array([0, 0, 2])).candidates == 2


def test_ties_count_against_the_query():
    ecg, text = np.ones((4, 3)) * np.arange(1, 5)[:, None], np.ones((3, 3)) * 0.1
    text_id = np.array([0, 0, 1, 2])
    np.testing.assert_array_equal(retrieval.ecg_to_report(ecg, text, text_id).rank, 3)
    expected = [3, 3, 4, 4]  # all records with another text come first
    np.testing.assert_array_equal(retrieval.report_to_ecg(ecg, text, text_id).rank, expected)


def test_queries_in_parts_are_the_queries_together(monkeypatch):
    data = sample(1)[:3]
    whole = [search(*data) for search in (retrieval.ecg_to_report, retrieval.report_to_ecg)]
    monkeypatch.setattr(retrieval, "_ROWS", 7)
    for search, expected in zip(
        (retrieval.ecg_to_report, retrieval.report_to_ecg), whole, strict=True
    ):
        np.testing.assert_array_equal(search(*data).rank, expected.rank)


def test_rows_hold_the_figures():
    data = sample(2)
    rows = make(data, draws=300)
    assert [(r["label"], r["metric"]) for r in rows] == [
        (label, metric)
        for label in ("ecg_to_report", "report_to_ecg")
        for metric in ("recall@1", "recall@5", "recall@10", "median_rank")
    ]
    assert all(tuple(r)[: len(results.COLUMNS)] == results.COLUMNS for r in rows)
    for search in (retrieval.ecg_to_report, retrieval.report_to_ecg):
        rank = search(*data[:3]).rank
        for k in (1, 5, 10):
            row = find(rows, search.__name__, f"recall@{k}")
            assert row["value"] == pytest.approx((rank <= k).mean())
            assert row["positives"] == (rank <= k).sum()
            assert row["ci_low"] < row["value"] < row["ci_high"]
        row = find(rows, search.__name__, "median_rank")
        assert row["value"] == np.median(rank)
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
    assert {(r["protocol"], r["task"], r["rule"], r["fraction"], r["n"]) for r in rows} == {
        ("retrieval", "reports", "corrected", None, 60)
    }


@pytest.mark.parametrize("label", ["ecg_to_report", "report_to_ecg"])
def test_chance_is_the_best_order_that_is_the_same_for_all_queries(label):
    """Embeddings of one side that make such an order, for every order of a few reports."""
    text_id = np.array([2, 0, 1, 2, 3, 0, 2])
    patient, found = np.arange(7).astype(str), []
    for order in itertools.permutations(range(4)):
        height = np.array(order)
        fixed = np.stack([np.ones(4), 0.1 * height], axis=1)  # the higher, the nearer to (0, 1)
        alike = np.tile([0.0, 1.0], (7, 1))
        if label == "ecg_to_report":
            ecg, text = alike, fixed
        else:  # the first record of each report in that order, all others last
            first = np.array([list(text_id).index(report) for report in range(4)])
            ecg, text = np.tile([1.0, -1.0], (7, 1)), alike[:4]
            ecg[first] = fixed
        rows = make((ecg, text, text_id, patient), draws=10)
        found.append({row["metric"]: row for row in rows if row["label"] == label})
    for metric in ("recall@1", "recall@5", "median_rank"):
        best = min if metric == "median_rank" else max
        assert {rows[metric]["chance"] for rows in found} == {
            best(rows[metric]["value"] for rows in found)
        }


def test_chance_by_hand():
    # Of seven queries three have one report, two another: 3 / 7 are found first.
    text_id = np.array([2, 0, 1, 2, 3, 0, 2])
    rng = np.random.default_rng(0)
    data = rng.normal(size=(7, 3)), rng.normal(size=(4, 3)), text_id, np.arange(7).astype(str)
    for label in ("ecg_to_report", "report_to_ecg"):
        chance = {row["metric"]: row["chance"] for row in make(data) if row["label"] == label}
        assert chance == {
            "recall@1": 3 / 7,
            "recall@5": 1,
            "recall@10": 1,
            "median_rank": 2,
        }


def test_weighted_median_is_that_of_repeated_values():
    rng = np.random.default_rng(0)
    for n in (1, 2, 9, 10):
        values, weight = rng.integers(1, 7, n), rng.integers(0, 4, (50, n)).astype(np.uint16)
        weight[:, 0] += weight.sum(axis=1) == 0
        expected = [np.median(np.repeat(values, w)) for w in weight]
        np.testing.assert_array_equal(retrieval.weighted_median(values, weight), expected)
        assert retrieval.weighted_median(values) == np.median(values)


def test_records_without_report_neither_ask_nor_answer():
    ecg, text, text_id, patient = sample(4, missing=7)
    rows = make((ecg, text, text_id, patient), draws=50)
    without = make((ecg[7:], text, text_id[7:], patient[7:]), draws=50)
    assert "7 records without report left out" in rows[0]["note"]
    for a, b in zip(rows, without, strict=True):
        note = a.pop("note"), b.pop("note")
        assert note[0].startswith(note[1])
        np.testing.assert_equal(a, b)


def test_one_patient_and_all_found_give_no_interval():
    ecg, text, text_id, patient = sample(5)
    for row in make((ecg, text, text_id, np.full(60, "p")), draws=20):
        assert np.isnan(row["ci_low"])
        assert row["note"].endswith("no interval: all hits, or all misses, are of one patient")
    perfect = make((text[text_id], text, text_id, patient), draws=20)
    assert find(perfect, "ecg_to_report", "recall@1")["value"] == 1
    assert np.isnan(find(perfect, "ecg_to_report", "recall@1")["ci_low"])
    assert find(perfect, "report_to_ecg", "median_rank")["value"] == 1


def test_patients_are_drawn_together():
    """Doubling every record adds queries but no patients: the interval stays."""
    ecg, text, text_id, _ = sample(6, n=200)
    patient = np.arange(200).astype(str)
    twice = np.repeat(np.arange(200), 2)
    one = find(make((ecg, text, text_id, patient)), "ecg_to_report", "recall@1")
    two = find(
        make((ecg[twice], text, text_id[twice], patient[twice])), "ecg_to_report", "recall@1"
    )
    assert two["value"] == one["value"]
    assert two["ci_low"] == pytest.approx(one["ci_low"], abs=1e-9)


def test_wrong_input_is_refused():
    ecg, text, text_id, patient = sample(7)
    with pytest.raises(UserError, match="60 records have text_id"):
        make((ecg, text, text_id[:9], patient))
    with pytest.raises(UserError, match="there are none"):
        make((ecg, text, np.full(60, -1), patient))
    with pytest.raises(UserError, match="not of one space"):
        make((ecg[:, :5], text, text_id, patient))
    with pytest.raises(UserError, match="for 3 report embeddings"):
        make((ecg, text[:3], text_id, patient))
    with pytest.raises(UserError, match="whole number"):
        make((ecg, text, text_id.astype(float), patient))
    text[text_id[0]] = 0
    with pytest.raises(UserError, match="a report's embedding is zero"):
        make((ecg, text, text_id, patient))
    ecg[2, 0] = np.nan
    with pytest.raises(UserError, match="a record's embedding is zero or not finite"):
        make((ecg, text, text_id, patient))
