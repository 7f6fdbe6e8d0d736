"""Published figures: all of them are there, within bounds, and as printed."""

import math

import numpy as np
import pytest

from ecg_jax.errors import UserError
from ecg_jax.evaluation.papers import published

ROWS = published.load()
SIZES = {
    "etp-table1": 2 * 9 * 2,  # datasets, methods, metrics
    "etp-table2": 6 * 2 * 3,  # five classes and their average
    "etp-table3": 10 * 2 * 3,
    "mets-table1": 4 * 4,
    "mets-table2": 4 * 4,
    "mets-table3": 4 * 4,
    "beat-ssl": 5 * 2 + 5,  # PTB-XL's superclasses, LUDB's waves
    "context-zero-shot": 10,
    "context-linear": 15,
    "context-supervised": 5,
}


def table_rows(name):
    return [row for row in ROWS if row["table"] == name]


def figures(table, encoder, dataset=None, label="macro"):
    return {
        row["metric"]: row["value"]
        for row in table_rows(table)
        if row["encoder"] == encoder and row["label"] == label and dataset in (None, row["dataset"])
    }


def test_every_table_is_whole():
    assert list(dict.fromkeys(row["table"] for row in ROWS)) == list(SIZES)
    assert {name: len(table_rows(name)) for name in SIZES} == SIZES
    for row in ROWS:
        assert tuple(row) == published.COLUMNS
        assert 0 <= row["value"] <= 1 and math.isfinite(row["value"])
        assert row["note"] and row["source"]


@pytest.mark.parametrize(
    ("table", "encoder", "dataset", "expected"),
    [
        ("etp-table1", "ETP", "ptb_xl", {"auroc": 0.835, "f1": 0.613}),
        ("beat-ssl", "soft+hard", "ptb_xl", {"auroc": 0.843, "f1": 0.622}),
        ("beat-ssl", "soft+hard", "ludb", {"dice": 0.911}),
        ("etp-table1", "ETP", "cpsc2018", {"auroc": 0.861, "f1": 0.634}),
        ("etp-table2", "ETP", "ptb_xl", {"auroc": 0.546, "accuracy": 0.608, "f1": 0.331}),
        ("etp-table3", "ETP", "cpsc2018", {"auroc": 0.571, "accuracy": 0.609, "f1": 0.271}),
        (
            *("mets-table1", "METS", "ptb_xl"),
            {"accuracy": 0.842, "precision": 0.694, "recall": 0.626, "f1": 0.657},
        ),
        (
            *("mets-table2", "ResNet18", "ptb_xl"),
            {"accuracy": 0.724, "precision": 0.520, "recall": 0.508, "f1": 0.509},
        ),
        (
            *("mets-table3", "METS", "mit_bih"),
            {"accuracy": 0.794, "precision": 0.680, "recall": 0.735, "f1": 0.706},
        ),
    ],
)
def test_figures_that_the_papers_state_in_words(table, encoder, dataset, expected):
    assert figures(table, encoder, dataset) == pytest.approx(expected)


@pytest.mark.parametrize("table", ["etp-table2", "etp-table3"])
@pytest.mark.parametrize("encoder", ["Random init", "ETP"])
def test_printed_averages_are_the_means_of_printed_classes(table, encoder):
    """A check of the typing: a wrong figure of a class would show in its average."""
    rows = [row for row in table_rows(table) if row["encoder"] == encoder]
    labels = {row["label"] for row in rows} - {"macro"}
    for metric, average in figures(table, encoder).items():
        mean = np.mean([figures(table, encoder, label=label)[metric] for label in labels])
        if (table, encoder) == ("etp-table3", "Random init") and metric != "auroc":
            assert abs(mean - average) > 0.02  # the paper's own; the table's note says so
        else:
            assert average == pytest.approx(mean, abs=1.1e-3)


def test_metrics_of_mets_fit_each_other():
    """F1 lies near the harmonic mean of macro precision and recall, and never above it."""
    for table in ("mets-table1", "mets-table2", "mets-table3"):
        for encoder in ("random", "SimCLR", "METS", "ResNet18"):
            f = figures(table, encoder)
            harmonic = 2 * f["precision"] * f["recall"] / (f["precision"] + f["recall"])
            assert harmonic - 0.006 < f["f1"] < harmonic + 0.001


def test_what_a_figure_is_to_be_set_beside():
    for row in ROWS:
        roles = {"ETP": "trained", "METS": "trained", "Random init": "random", "random": "random"}
        roles |= {"ResNet18": "supervised"}
        if row["rule"] == "paper":
            assert row["role"] == roles.get(row["encoder"], "baseline")
        assert (row["fraction"] is None) == (row["protocol"] == "zero_shot")
        assert (row["rule"] == "paper") == (row["table"].split("-")[0] in ("etp", "mets"))
    zero_shot = {
        r["task"]: r["value"] for r in ROWS if r["encoder"] == "MERL" and not r["fraction"]
    }
    assert zero_shot == {
        "super": 0.742,
        "sub": 0.757,
        "form": 0.659,
        "rhythm": 0.785,
        "cpsc": 0.828,
    }
    supervised = {r["task"]: r["value"] for r in table_rows("context-supervised")}
    assert supervised == dict(super=0.930, sub=0.930, form=0.899, rhythm=0.957, all=0.925)


def test_callers_cannot_change_the_figures():
    published.load()[0]["value"] = 9.0
    assert published.load()[0]["value"] == ROWS[0]["value"]


GOOD = """
[t]
source = "s"
title = "t"
rule = "paper"
scale = 100
dataset = "ptb_xl"
task = "super"
label = "MI"
protocol = "zero_shot"
metrics = ["auroc"]
note = "n"
[[t.parts]]
values = { "A" = [50.0] }
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('rule = "paper"', 'rule = "own"', "rule is one of"),
        ('metrics = ["auroc"]', 'metrics = ["auc"]', "unknown metrics: auc"),
        ("scale = 100", "scale = 1", "not 1 figures of 0-1"),
        ("[50.0]", "[50.0, 60.0]", "not 1 figures"),
        ('"super"', '"rhytm"', "no task 'rhytm'"),
        ('"MI"', '"AMI"', "super has no class 'AMI'"),
        ('"zero_shot"', '"zeroshot"', "protocol is one of"),
        ('"zero_shot"', '"finetune"', "finetune with fraction None"),
        ('note = "n"', "", "lacks note"),
        ('note = "n"', 'note = "n"\nnotes = "m"', "unknown fields: notes"),
        ('label = "MI"', "", "a part lacks label"),
        ("[[t.parts]]", '[[t.parts]]\nvalues = { "A" = [1.0] }\n[[t.parts]]', "two figures for t"),
        ("[t]", "[t", "cannot be read"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, old, new, message):
    path = tmp_path / "published.toml"
    path.write_text(GOOD)
    assert [row["value"] for row in published.load(path)] == [0.5]
    path = tmp_path / "damaged.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        published.load(path)
