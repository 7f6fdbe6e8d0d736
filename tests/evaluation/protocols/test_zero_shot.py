import numpy as np
import pytest

from ecg_jax.errors import UserError
from ecg_jax.evaluation.protocols import zero_shot


def test_prompts_are_averaged_on_the_unit_sphere():
    prompts = {"AF": np.array([[10.0, 0.0], [0.0, 0.1]]), "NORM": np.array([[0.0, -3.0]])}
    embedding = zero_shot.class_embeddings(prompts)
    assert embedding.dtype == np.float32
    np.testing.assert_allclose(embedding, [[0.5**0.5, 0.5**0.5], [0, -1]], atol=1e-7)


def test_scores_are_cosines():
    rng = np.random.default_rng(0)
    ecg, classes = rng.normal(size=(7, 5)), rng.normal(size=(3, 5))
    score = zero_shot.scores(ecg, classes)
    for n in range(7):
        for k in range(3):
            lengths = np.linalg.norm(ecg[n]) * np.linalg.norm(classes[k])
            assert score[n, k] == pytest.approx(ecg[n] @ classes[k] / lengths, abs=1e-6)
    np.testing.assert_allclose(zero_shot.scores(ecg * 9, classes / 7), score, atol=1e-7)


def test_the_prompt_set_is_the_best_on_validation():
    rng = np.random.default_rng(1)
    y = rng.random((60, 3)) < 0.4
    y[:, 2] = False  # undefined, so it has no say
    scores = {s: rng.normal(size=y.shape) + gap * y for s, gap in (("a", 0), ("b", 3), ("c", 1))}
    assert zero_shot.choose_prompt_set(scores, y) == "b"
    assert zero_shot.choose_prompt_set({"x": scores["c"], "y": scores["c"]}, y) == "x"
    auroc = zero_shot.prompt_set_auroc(scores, y)
    assert auroc["b"] > auroc["c"] > auroc["a"]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({}, "at least one class"),
        ({"AF": np.zeros((0, 4))}, "'AF' needs prompt embeddings"),
        ({"AF": np.zeros((2, 4))}, "prompt of class 'AF'"),
        ({"AF": np.array([[1.0, np.nan]])}, "prompt of class 'AF'"),
        ({"AF": np.array([[1.0, 0.0], [-1.0, 0.0]])}, "'AF' embedding is zero"),
        ({"AF": np.ones((1, 4)), "NORM": np.ones((1, 5))}, "differ in width"),
    ],
)
def test_prompts_without_direction_are_refused(prompts, message):
    with pytest.raises(UserError, match=message):
        zero_shot.class_embeddings(prompts)


def test_embeddings_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="not of one joint space"):
        zero_shot.scores(np.ones((4, 3)), np.ones((2, 5)))
    with pytest.raises(UserError, match="record's embedding is zero"):
        zero_shot.scores(np.zeros((4, 3)), np.ones((2, 3)))
    with pytest.raises(UserError, match="cannot be chosen"):
        zero_shot.choose_prompt_set({"a": np.zeros((5, 2))}, np.zeros((5, 2), bool))
    with pytest.raises(UserError, match="cannot be chosen"):
        zero_shot.choose_prompt_set({}, np.ones((5, 2), bool))
