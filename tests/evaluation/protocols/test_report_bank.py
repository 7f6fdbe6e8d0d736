import numpy as np
import pytest

from ecg_jax.errors import UserError
from ecg_jax.evaluation.protocols import report_bank, zero_shot

RNG = np.random.default_rng(0)
REPORTS = [["sinus rhythm.", "normal ecg."], ["left bundle branch block."], ["sinus rhythm."]]


def unit(x):
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def bank():
    distinct, part, start = report_bank.pieces(REPORTS)
    sentence = unit(RNG.normal(size=(len(distinct), 6)))
    embedding = unit(RNG.normal(size=(3, 6)))
    return report_bank.Bank(embedding, np.array([5, 1, 2]), sentence, part, start)


def test_reports_are_taken_to_pieces():
    distinct, part, start = report_bank.pieces(REPORTS)
    ends = [*start[1:], len(part)]
    assert [[distinct[i] for i in part[a:b]] for a, b in zip(start, ends, strict=True)] == REPORTS
    with pytest.raises(UserError, match="report 1 of 2 has no sentence"):
        report_bank.pieces([["a."], []])


def test_means_count_every_record(bank):
    every = np.repeat(bank.embedding, bank.count, axis=0)
    np.testing.assert_allclose(bank.mean, every.mean(axis=0), atol=1e-6)
    left, normal, sinus = bank.sentence
    written = 5 * (sinus + normal) + 1 * left + 2 * sinus
    np.testing.assert_allclose(bank.mean_sentence, written / 13, atol=1e-6)


def test_a_class_is_found_by_the_best_sentence_and_the_best_finding(bank):
    left, normal, sinus = bank.sentence
    found = report_bank.found(bank, {"CD": np.stack([left, -sinus]), "NORM": normal[None]})
    assert found.shape == (3, 2)
    np.testing.assert_allclose([found[1, 0], found[0, 1]], 1, atol=1e-6)
    assert found[0, 0] < 1 and found[2, 1] < found[0, 1]


def test_reports_are_read_by_likeness_and_by_how_often_they_occur(bank):
    ecg, says = RNG.normal(size=(700, 6)), RNG.random((3, 2)).astype(np.float32)
    (read,) = report_bank.read(ecg, bank, [says], 0.1)
    weight = np.exp(unit(ecg) @ bank.embedding.T / 0.1) * bank.count
    np.testing.assert_allclose(read, weight / weight.sum(1, keepdims=True) @ says, atol=1e-5)
    both = report_bank.read(ecg, bank, [says, says[:, :1]], 0.1)
    np.testing.assert_allclose(both[0], read, atol=1e-6)
    np.testing.assert_allclose(both[1], read[:, :1], atol=1e-6)


def test_a_rewritten_prompt_goes_where_the_reports_are_that_say_it(bank):
    found = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
    prompts = unit(RNG.normal(size=(2, 6)))
    made = report_bank.rewritten(bank, prompts, found)
    said = zero_shot.unit(bank.embedding[:2] - bank.mean, "a")
    np.testing.assert_allclose(made, unit(said + prompts), atol=1e-5)


def test_centring_takes_away_what_all_share():
    x = RNG.normal((9, 0, 0, 0), size=(50, 4))
    mean = zero_shot.unit(x, "a").mean(axis=0)
    made = zero_shot.centred(x, mean)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)
    assert abs(made.mean(axis=0)).max() < 0.2 < abs(unit(x).mean(axis=0)).max()
