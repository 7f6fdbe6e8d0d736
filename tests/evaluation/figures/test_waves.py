"""Boundaries, sample-level figures and decoding of waves."""

import numpy as np
import pytest

from ecg_jax.evaluation.figures import waves


def drawn(text):
    """ "-PPQT?" as uint8 [T, 1] and what is known of it."""
    kinds = np.array(["-PQT".find(c) for c in text])
    return np.where(kinds < 0, 0, kinds).astype(np.uint8)[:, None], (kinds >= 0)[:, None]


def of(found, true, rate=100):
    (a, _), (b, known) = drawn(found), drawn(true)
    return waves.counts(a, b, known, rate)


def test_boundaries_are_matched_once_within_the_tolerance():
    #              0         1         2
    true = "??--PPPP---QQQQ--TTTTT--??"
    found = "---PPPP----QQQQ-----TTT---"  # P 10 ms early, T's onset 30 ms late
    one = of(found, true)
    assert one["150"].tolist() == [[[1, 0, 0]] * 2] * 3 == one["strict"].tolist()
    assert one["errors"] == [
        (1, 0, -10.0),
        (1, 1, -10.0),
        (2, 0, 0.0),
        (2, 1, 0.0),
        (3, 0, 30.0),
        (3, 1, 10.0),
    ]
    far = of("----PPPP---QQQQ--TTTTT----", "??--" + "-" * 20 + "??")
    assert far["150"][:, :, 2].tolist() == [[1, 1]] * 3  # all are extra
    late = of("-------------PPPP---------", true)
    assert late["150"][0].tolist() == [[1, 0, 0], [1, 0, 0]]
    assert late["strict"][0].tolist() == [[0, 1, 1], [0, 1, 1]]


def test_what_is_not_labelled_is_neither_right_nor_wrong():
    true = "????---QQQQ---??QQ---?????"  # the second complex has no marked onset
    one = of("PPP----QQQQ--------QQ--TTT", true)
    assert one["150"][0].sum() == 0 == one["150"][2].sum()
    assert one["150"][1].tolist() == [[1, 0, 1], [2, 0, 0]]
    assert one["confusion"].sum() == sum(c != "?" for c in true)


@pytest.mark.parametrize("seed", range(3))
def test_matching_against_trying_all(seed):
    """As many pairs as any one-to-one matching has, where places are farther apart than twice the
    tolerance."""
    rng = np.random.default_rng(seed)
    a = np.sort(rng.choice(np.arange(0, 200, 11), 8, replace=False))
    b = np.sort(rng.choice(np.arange(0, 200, 11), 7, replace=False) + rng.integers(-6, 7, 7))
    pairs, extra = waves.match(a, b, 5)
    assert len(pairs) == sum((np.abs(b - x) <= 5).any() for x in a)
    assert len(pairs) + len(extra) == len(b) and len({x for _, x in pairs}) == len(pairs)


def test_figures_by_hand():
    each = [of("--PP--QQ--TTT-", "--PP--QQ--TTT-"), of("------QQ--TT--", "--PP--QQ--TTT-")]
    one = waves.figures(each, np.ones((1, 2)))
    assert one["P onset", "f1_150"] == pytest.approx(2 / 3)
    assert one["P onset", "recall_150"] == 0.5 and one["P onset", "precision_150"] == 1
    assert one["T offset", "f1_strict"] == 1 and one["QRS onset", "f1_150"] == 1
    assert one["macro", "f1_150"] == pytest.approx((2 * 2 / 3 + 4) / 6)
    dice = [2 * 2 / 6, 1, 2 * 5 / 11]
    assert one["macro", "dice"] == pytest.approx(np.mean(dice))
    iou = [14 / 17, 2 / 4, 1, 5 / 6]
    assert one["macro", "miou"] == pytest.approx(np.mean(iou))
    first = waves.figures(each, np.array([[2, 0], [0, 1]]))
    assert first["macro", "dice"][0] == 1 and first["P", "iou"][1] == 0


def test_rows_have_intervals_over_patients():
    each = [of("--PP--QQ--TTT-", "--PP--QQ--TTT-"), of("------QQ--TT--", "--PP--QQ--TTT-")] * 4
    names = np.array([f"p{i}" for i in range(8)])
    table = waves.rows(each, names, 200, task="waves", encoder="x")
    found = {(row["label"], row["metric"]): row for row in table}
    row = found["macro", "dice"]
    assert row["ci_low"] < row["value"] < row["ci_high"] and row["n"] == 8
    assert found["T offset", "error_ms"]["value"] == pytest.approx(-5.0)
    assert found["T offset", "error_sd_ms"]["value"] == pytest.approx(5.0)
    assert {row["encoder"] for row in table} == {"x"}


def test_decoding():
    rng = np.random.default_rng(0)
    kinds = np.concatenate([np.full(n, k) for k, n in ((0, 9), (1, 10), (0, 5), (2, 9), (3, 12))])
    kinds = np.concatenate([kinds, np.zeros(9, int)])
    p = np.full((2, len(kinds), 4), 0.1)
    p[:, np.arange(len(kinds)), kinds] = 0.7
    p[1, 5] = p[1, 27] = (0.01, 0.01, 0.01, 0.97)  # single samples that a T wave cannot be
    log_p = np.log(p) + rng.normal(0, 0.05, p.shape)
    path = waves.decode(log_p, 100)
    assert path.dtype == np.uint8
    np.testing.assert_array_equal(path[0], kinds)
    np.testing.assert_array_equal(path[1], kinds)


def test_decoding_is_the_best_of_all_sequences():
    """Under the rules and the penalty, of all of five samples."""
    rng = np.random.default_rng(1)
    log_p = np.log(rng.dirichlet(np.ones(4), (3, 5)))
    shortest, waves.SHORTEST = waves.SHORTEST, {}
    try:
        path = waves.decode(log_p, 100)
    finally:
        waves.SHORTEST = shortest
    every = np.array(np.meshgrid(*[range(4)] * 5, indexing="ij")).reshape(5, -1).T
    step = np.where(waves.ALLOWED, -waves.PENALTY * (1 - np.eye(4)), -np.inf)
    moves = step[every[:, :-1], every[:, 1:]].sum(axis=1)
    for one, ours in zip(log_p, path, strict=True):
        total = moves + one[np.arange(5), every].sum(axis=1)
        np.testing.assert_array_equal(ours, every[total.argmax()])


def test_a_paired_comparison_exchanges_patients():
    """p as counted by exchanging whole patients one permutation at a time; nothing gained is 1."""
    rng = np.random.default_rng(0)
    true = [("??" + "".join(rng.choice(list("-PQT"), 30))) for _ in range(12)]
    worse = ["".join(c if rng.random() < 0.7 else "-" for c in t).replace("?", "-") for t in true]
    a, b = (
        [of(found.replace("?", "-"), t) for found, t in zip(f, true, strict=True)]
        for f in (true, worse)
    )
    patient = np.repeat(np.arange(6), 2)
    gained, p = waves.compare(a, b, patient, permutations=50)["macro", "dice"]
    one = np.ones((1, 12))
    dice = [waves.figures(x, one)["macro", "dice"][0] for x in (a, b)]
    assert gained == pytest.approx(dice[0] - dice[1]) and gained > 0.1
    swap = np.random.default_rng(0).integers(2, size=(50, 6))[:, patient]
    as_large = 1
    for s in swap[1:]:
        both = [
            [(y, x)[k] if i else (x, y)[k] for x, y, k in zip(a, b, s, strict=True)] for i in (0, 1)
        ]
        x, y = (waves.figures(each, one)["macro", "dice"][0] for each in both)
        as_large += abs(x - y) >= gained - 1e-12
    assert p == as_large / 50
    assert waves.compare(a, a, patient, permutations=20)["macro", "miou"] == (0.0, 1.0)


def test_what_is_not_defined_is_not_compared():
    """Without a T wave in any record its sample-level F1 is none, and with it their mean."""
    each = [of("--PPQQ--", "--PPQQ--"), of("--PP-Q--", "--PPQQ--")]
    found = waves.compare(each, each[::-1], np.arange(2), permutations=20)
    assert ("macro", "dice") not in found and ("macro", "f1_150") in found


def test_sample_f1_of_each_record():
    each = [of("--PPQQ--", "--PPQQ--"), of("--PP----", "--PPPP--"), of("----", "????")]
    np.testing.assert_allclose(waves.sample_f1(each), [1, 2 / 3, np.nan])
