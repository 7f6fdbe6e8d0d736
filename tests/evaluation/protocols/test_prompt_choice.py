"""Which prompts serve which class."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ecg_jax.errors import UserError
from ecg_jax.evaluation.protocols import prompt_choice


def test_each_wording_is_scored_for_its_own_class():
    rng = np.random.default_rng(0)
    ecg = rng.normal(size=(80, 6))
    y = rng.random((80, 2)) < 0.3
    wordings = {"MI": rng.normal(size=(3, 6)), "NORM": rng.normal(size=(1, 6))}
    auroc = prompt_choice.wording_auroc(ecg, wordings, y)
    assert {name: len(values) for name, values in auroc.items()} == {"MI": 3, "NORM": 1}
    for k, (name, vectors) in enumerate(wordings.items()):
        for value, vector in zip(auroc[name], vectors, strict=True):
            cosine = ecg @ vector / np.linalg.norm(ecg, axis=1)
            assert value == pytest.approx(roc_auc_score(y[:, k], cosine), abs=1e-6)


def test_a_wording_that_points_at_its_class_wins():
    y = np.array([[1], [1], [0], [0]], bool)
    ecg = np.array([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.2], [-1.0, 0.1]])
    auroc = prompt_choice.wording_auroc(ecg, {"MI": np.array([[-1.0, 0], [1.0, 0]])}, y)
    assert auroc["MI"].tolist() == [0.0, 1.0]
    table = prompt_choice.wording_table({"MI": ["worse.", "better."]}, auroc, [2])
    assert table.splitlines() == ["MI, 2 positives", "  1.000  better.", "  0.000  worse."]


def test_the_table_shows_each_class_and_the_choice():
    auroc = {"etp": np.array([0.9, np.nan, 0.4]), "clinical": np.array([0.7, np.nan, 0.8])}
    lines = prompt_choice.choice_table(auroc, ["NORM", "WPW", "MI"], [50, 0, 9]).splitlines()
    assert lines[0].split() == ["positives", "etp", "clinical", "best"]
    assert lines[1].split() == ["NORM", "50", "0.900", "0.700", "etp"]
    assert lines[2].split() == ["WPW", "0", "-", "-", "-"]
    assert lines[3].split() == ["MI", "9", "0.400", "0.800", "clinical"]
    assert lines[4].split() == ["macro", "0.650", "0.750", "clinical"]
    assert lines[5] == "serves the task: clinical (chosen on validation)"


def test_set_auroc_is_by_class():
    y = np.array([[1, 0], [0, 0], [1, 0]], bool)
    score = np.array([[3.0, 1], [1, 2], [2, 3]])
    values = prompt_choice.set_auroc({"etp": score}, y)["etp"]
    assert values[0] == 1 and np.isnan(values[1])


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="do not fit 1 classes"):
        prompt_choice.wording_auroc(np.ones((3, 2)), {"MI": np.ones((1, 2))}, np.ones((3, 2)))
    with pytest.raises(UserError, match="one AUROC for each class"):
        prompt_choice.choice_table({"etp": np.ones(2)}, ["A", "B", "C"], [1, 2, 3])
    with pytest.raises(UserError, match="one AUROC for each class"):
        prompt_choice.choice_table({}, ["A"], [1])
    with pytest.raises(UserError, match="MI: one AUROC for each of its 2"):
        prompt_choice.wording_table({"MI": ["a", "b"]}, {"MI": np.ones(1)}, [1])
