import json
import math

import numpy as np
import pytest

from ecg_jax.errors import UserError
from ecg_jax.evaluation.figures import bootstrap, metrics, results, tables
from ecg_jax.runtime import files

CLASSES = ("NORM", "MI", "WPW", "AFIB")
PATIENT = np.array([f"p{i // 2}" for i in range(200)])


def sample(gap=1.5):
    """Four classes; WPW has no positive."""
    rng = np.random.default_rng(0)
    y = rng.random((200, 4)) < [0.5, 0.3, 0.0, 0.1]
    return y, rng.normal(size=y.shape) + gap * y


def make(y, score, threshold=None, patient=PATIENT, draws=None, **kind):
    threshold = metrics.best_f1_threshold(y, score) if threshold is None else threshold
    draws = bootstrap.draws(patient, 200) if draws is None else draws
    kind = dict(task="super", dataset="ptb_xl", protocol="zero_shot", encoder="trained") | kind
    return results.rows(
        y, score, threshold, patient, classes=CLASSES, draws=draws, split="test", **kind
    )


def find(rows, label, metric):
    (row,) = [r for r in rows if (r["label"], r["metric"]) == (label, metric)]
    return row


def test_rows_hold_the_figures():
    y, score = sample()
    rows = make(y, score)
    assert len(rows) == 5 * 4
    assert all(tuple(row)[: len(results.COLUMNS)] == results.COLUMNS for row in rows)
    assert {row["n"] for row in rows} == {200}
    predicted = score >= metrics.best_f1_threshold(y, score)
    expected = {
        "auroc": metrics.auroc(y, score),
        "auprc": metrics.auprc(y, score),
        "f1": metrics.f1(y, predicted),
        "accuracy": metrics.accuracy(y, predicted),
    }
    for metric, values in expected.items():
        for k in (0, 1, 3):
            row = find(rows, CLASSES[k], metric)
            assert row["value"] == pytest.approx(values[k])
            assert row["ci_low"] < row["value"] < row["ci_high"]
            assert row["positives"] == y[:, k].sum()
        row = find(rows, "macro", metric)
        assert row["value"] == pytest.approx(values[[0, 1, 3]].mean())
        assert row["ci_low"] < row["value"] < row["ci_high"]
        assert row["positives"] == 3


def test_macro_interval_is_over_the_draws_macro_figures():
    y, score = sample()
    draws = bootstrap.draws(PATIENT, 200)
    drawn = metrics.auroc(y, score, draws)[:, [0, 1, 3]]
    value = metrics.auroc(y, score)[[0, 1, 3]].mean()
    patients = np.array(
        [min(len(set(PATIENT[y[:, k]])), len(set(PATIENT[~y[:, k]]))) for k in (0, 1, 3)]
    )
    row = find(make(y, score), "macro", "auroc")
    expected = bootstrap.interval(value, drawn, patients)
    np.testing.assert_allclose((row["ci_low"], row["ci_high"]), expected)


def test_chance_is_what_a_blind_predictor_reaches():
    y, score = sample()
    rows = make(y, score)
    prevalence = y[:, 1].mean()
    everything = metrics.f1(y, np.ones_like(y))[1]
    chance = [find(rows, "MI", metric)["chance"] for metric in results.METRICS]
    assert chance == pytest.approx([0.5, prevalence, everything, 1 - prevalence])
    assert find(rows, "macro", "auprc")["chance"] == pytest.approx(y[:, [0, 1, 3]].mean())


def test_classes_that_cannot_be_judged_are_named_and_left_out():
    y, score = sample()
    y[:, 1] = True
    score[:, 3] = np.nan
    rows = make(y, score)
    for label, note in (("WPW", "no positive"), ("MI", "no negative"), ("AFIB", "no score")):
        for metric in results.METRICS:
            row = find(rows, label, metric)
            assert math.isnan(row["value"])
            assert row["note"] == note
    for metric in results.METRICS:
        row = find(rows, "macro", metric)
        assert row["value"] == find(rows, "NORM", metric)["value"]
        assert row["note"] == (
            "3 of 4 classes left out: no negative: MI; no positive: WPW; no score: AFIB"
        )


def test_without_threshold_a_class_is_ranked_but_not_predicted():
    y, score = sample()
    threshold = np.array([0.5, np.nan, np.nan, 0.5])
    rows = make(y, score, threshold)
    assert find(rows, "MI", "f1")["note"] == "no threshold"
    assert math.isnan(find(rows, "MI", "accuracy")["value"])
    assert find(rows, "MI", "auroc")["value"] > 0.5
    assert find(rows, "macro", "f1")["positives"] == 2
    assert find(rows, "macro", "auroc")["positives"] == 3


def test_one_patient_gives_no_interval():
    y, score = sample()
    y[:, 3] = PATIENT == "p7"
    rows = make(y, score)
    row = find(rows, "AFIB", "auroc")
    assert 0 <= row["value"] <= 1
    assert math.isnan(row["ci_low"])
    assert row["note"] == results.ALONE
    assert "1 class rests on one patient" in find(rows, "macro", "auroc")["note"]


def test_arrays_that_do_not_fit_are_refused():
    y, score = sample()
    for change in (
        dict(score=score[:, :3]),
        dict(threshold=np.zeros(3)),
        dict(patient=PATIENT[:9], draws=np.ones((5, 200))),
        dict(draws=np.ones((5, 9))),
    ):
        with pytest.raises(UserError, match="do not fit"):
            make(**(dict(y=y, score=score) | change))
    by_record = bootstrap.draws(np.arange(200).astype(str), 20)
    with pytest.raises(UserError, match="do not belong to these patients"):
        make(y, score, draws=by_record)


def test_written_file_is_json_and_whole(tmp_path):
    y, score = sample()
    rows = make(y, score)
    path = tmp_path / "run" / "results.json"
    results.write(rows, path)
    read = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert [list(row) for row in read] == [list(row) for row in rows]
    assert read[0]["value"] == rows[0]["value"]
    assert next(r for r in read if r["label"] == "WPW")["value"] is None
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]
    results.write([], path)
    assert json.loads(path.read_text()) == []


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    y, score = sample()
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(UserError, match="row 0 lacks n"):
        results.write([{c: 0 for c in results.COLUMNS if c != "n"}], path)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*results.json: No space left"):
        results.write(make(y, score), path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_table_puts_encoders_and_chance_together():
    y, score = sample()
    rows = make(y, score) + make(*sample(gap=0), encoder="random")
    rows += make(y, score, protocol="linear_probe")
    text = tables.table(rows)
    assert max(map(len, text.splitlines())) <= 96
    first, second = text.split("\n\n")
    lines = first.splitlines()
    assert lines[0].startswith("ptb_xl super · zero_shot · test, 200 records")
    assert [line.split()[0] for line in lines[2:5]] == ["trained", "random", "chance"]
    macro = find(rows[:20], "macro", "auroc")
    cell = f"{macro['value']:.3f} ({macro['ci_low']:.3f}-{macro['ci_high']:.3f})"
    assert lines[2].split("  ")[1].strip() == cell
    assert lines[4].split()[1] == "0.500"
    assert lines[5:] == ["1 of 4 classes left out: no positive: WPW"]
    assert "linear_probe" in second
    one = find(rows[:20], "macro", "f1") | dict(note="odd")
    assert tables.table([*rows[:2], one, *rows[20:24]]).endswith("\ntrained F1: odd")
    assert "random" not in second


def test_table_of_rows_read_back(tmp_path):
    y, score = sample()
    y[:] = False
    path = tmp_path / "results.json"
    results.write(make(y, score), path)
    assert "trained  -" in tables.table(json.loads(path.read_text()))
