"""Prompts: every class of every task has them, and they say what the class is."""

import csv

import pytest

from ecg_jax.errors import UserError
from ecg_jax.text import prompts

DATA = prompts.load_prompts()


def test_published_templates():
    sets = prompts.prompt_sets(["NORM", "AFIB"], "scp")
    assert tuple(sets) == prompts.SETS
    assert sets["etp"]["AFIB"] == ["this ECG indicates atrial fibrillation"]
    assert sets["mets"]["NORM"] == ["The report of the ECG is that normal ECG"]
    assert list(sets["clinical"]) == ["NORM", "AFIB"]
    assert "sinus rhythm. normal ecg." in sets["clinical"]["NORM"]


def test_the_same_code_in_another_namespace_is_another_class():
    """Subclass AMI holds all anterior infarctions, statement AMI only those called anterior."""
    sub = prompts.prompt_sets(["AMI"], "sub")["clinical"]["AMI"]
    scp = prompts.prompt_sets(["AMI"], "scp")["clinical"]["AMI"]
    assert any("anteroseptal" in prompt for prompt in sub)
    assert not any("anteroseptal" in prompt for prompt in scp)


@pytest.mark.parametrize("namespace", prompts.NAMESPACES)
def test_every_class_has_an_ensemble(namespace):
    for code, entry in DATA[namespace].items():
        assert entry.keys() == {"name", "clinical"}, code
        assert 4 <= len(entry["clinical"]) <= 7, code
        assert len(set(entry["clinical"])) == len(entry["clinical"]), code
        for prompt in entry["clinical"]:
            assert prompt == prompt.strip().lower() and prompt.endswith("."), prompt


@pytest.mark.parametrize("namespace", prompts.NAMESPACES)
def test_classes_can_be_told_apart(namespace):
    ensembles = [frozenset(entry["clinical"]) for entry in DATA[namespace].values()]
    assert len(set(ensembles)) == len(ensembles)


def test_classes_are_the_builders():
    from tfds_builders.cpsc2018.read import CLASSES
    from tfds_builders.mit_bih.read import AAMI_CLASSES, RHYTHMS
    from tfds_builders.simulated.findings import CODES, SUPERCLASSES

    assert set(DATA["cpsc"]) == set(CLASSES)
    assert set(DATA["aami"]) == set(AAMI_CLASSES)
    assert set(DATA["mit_rhythm"]) == set(RHYTHMS)
    assert set(DATA["super"]) == set(SUPERCLASSES)
    assert set(CODES) <= set(DATA["scp"])
    assert (len(DATA["scp"]), len(DATA["sub"])) == (71, 23)


@pytest.mark.real_data
def test_classes_are_the_published_ones(real_data):
    with (real_data / "ptb-xl" / "scp_statements.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert set(DATA["scp"]) == {row[""] for row in rows}
    assert set(DATA["sub"]) == {row["diagnostic_subclass"] for row in rows} - {""}
    assert set(DATA["super"]) == {row["diagnostic_class"] for row in rows} - {""}


def test_unknown_class_and_namespace():
    with pytest.raises(UserError, match=r"XYZ of 'super'.*\[super\.XYZ\].*prompts\.toml"):
        prompts.prompt_sets(["NORM", "XYZ"], "super")
    with pytest.raises(UserError, match="scp, super, sub"):
        prompts.prompt_sets(["NORM"], "diagnostic")
