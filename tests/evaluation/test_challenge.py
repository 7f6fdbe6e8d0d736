"""The Challenge's score, by values of the published scorer; PTB-XL's statements as its classes."""

import types

import numpy as np
import pytest

from ecg_jax.data import challenge as classes
from ecg_jax.data.classes import STATEMENTS
from ecg_jax.data.records import Records
from ecg_jax.errors import UserError
from ecg_jax.evaluation import challenge, scoring, tabulate
from ecg_jax.evaluation.figures import results, tables
from ecg_jax.evaluation.figures.predictions import Predictions

# Labels and outputs of each recording; what outputs, labels and sinus rhythm earn; the score.
TABLE = [
    ([("AF", "AF AFL")], (0.75, 1, 0.125), 0.714286),
    ([("AF LAD", "AF")], (0.675, 1.35, 0.65 / 3), 0.404412),
    ([("AF LAD", "AF LAD")], (1.35, 1.35, 0.65 / 3), 1),
    ([("NSR", "NSR")], (1, 1, 1), 0),
    ([("NSR", "NSR"), ("AF", "QAb")], (1.2, 2, 1.125), 0.085714),
    ([("AF", ""), ("", "AF"), ("SB TAb", "SB TInv")], (0.7, 2.3, 4.3 / 12), 0.175966),
]


def table(recordings, side):
    rows = [[name in pair[side].split() for name in classes.CLASSES] for pair in recordings]
    return np.array(rows)


@pytest.mark.parametrize(("recordings", "raw", "score"), TABLE)
def test_equals_the_published_scorer(recordings, raw, score):
    found = challenge.earned(table(recordings, 0), table(recordings, 1))
    np.testing.assert_allclose(found.sum(axis=0), raw, atol=1e-9)
    observed, correct, inactive = raw
    exact = (observed - inactive) / (correct - inactive) if correct > inactive else 0
    assert float(challenge.score(found)) == pytest.approx(exact, abs=1e-9)
    assert exact == pytest.approx(score, abs=1e-6)  # as the scorer prints it


def test_equals_its_definition__written_down():
    """To 1e-9, of random recordings, by the sum over pairs as it is written down."""
    rng, W = np.random.default_rng(0), challenge.weights()
    y, output = rng.random((2, 200, 26)) < 0.08

    def raw(said):
        pairs = np.zeros((26, 26))
        for labels, outputs in zip(y, said, strict=True):
            pairs[np.ix_(labels, outputs)] += 1 / max((labels | outputs).sum(), 1)
        return (W * pairs).sum()

    sinus = np.tile(np.arange(26) == 14, (200, 1))
    observed, correct, inactive = raw(output), raw(y), raw(sinus)
    found = challenge.earned(y, output)
    wanted = (observed - inactive) / (correct - inactive)
    assert float(challenge.score(found)) == pytest.approx(wanted, abs=1e-9)
    draws = rng.integers(0, 3, (4, 200))
    each = [challenge.score(np.repeat(found, draw, axis=0)) for draw in draws]
    np.testing.assert_allclose(challenge.score(found, draws), each, atol=1e-9)


def test_weights_are_symmetric_and_of_the_known_classes():
    W = challenge.weights()
    np.testing.assert_array_equal(W, W.T)
    assert (np.diag(W) == 1).all() and W.min() == 0.15 and np.sort(W.ravel())[-27] == 0.5
    assert classes.CLASSES.index("NSR") == 14 and len(classes.CLASSES) == 26


def test_thresholds_of_validation_reach_more_than_those_of_accuracy():
    rng = np.random.default_rng(1)
    y = rng.random((400, 3)) < (0.2, 0.5, 0.1)
    scores = y + rng.normal(0, 0.7, y.shape)
    scores[:, 2] = np.nan
    names = ["AF", "NSR", "PVC"]
    cut = challenge.thresholds(y, scores, names)
    reached = challenge.score(challenge.earned(y, scores >= cut, names))
    plain = challenge.score(challenge.earned(y, scores >= 0.5, names))
    assert np.isnan(cut[2]) and np.isfinite(cut[:2]).all() and reached >= plain


def test_ptb_xl_has_21_of_the_classes_from_statements_that_exist():
    used = [name for names in classes.FROM_SCP.values() for name in names]
    assert set(used) <= set(STATEMENTS) and len(set(used)) == len(used)
    assert [name for name in classes.CLASSES if name in classes.PTB_XL] == list(classes.PTB_XL)
    y = np.zeros((2, len(STATEMENTS)), bool)
    y[0, [STATEMENTS.index(name) for name in ("NT_", "LOWT", "SR", "SVARR")]] = True
    found = classes.from_scp(y, list(STATEMENTS))
    assert [classes.PTB_XL[k] for k in np.flatnonzero(found[0])] == ["NSR", "TAb"]
    assert not found[1].any()


def test_bad_input():
    y = np.ones((1, 1), bool)
    with pytest.raises(UserError, match="needs the class NSR"):
        challenge.earned(y, y, ["AF"])
    with pytest.raises(UserError, match="WPW is none of the Challenge's classes"):
        challenge.earned(y, y, ["WPW"])


def test_the_row_of_a_table():
    rng = np.random.default_rng(2)
    names = ["AF", "NSR", "PVC"]
    y = rng.random((60, 3)) < (0.3, 0.5, 0.2)
    p = Predictions(
        task="challenge",
        dataset="own",
        protocol="linear_probe",
        encoder="trained",
        rule="corrected",
        fraction=1.0,
        condition="2 leads",
        classes=names,
        record_id=np.arange(60).astype(str),
        patient_id=np.arange(60).astype(str),
        y=y,
        score=(y + rng.normal(0, 0.5, y.shape)).astype(np.float32),
        threshold=np.full(3, 0.5),
    )
    rows = tabulate.rows(p, paper="etp", draws=200)
    (row,) = [row for row in rows if row["metric"] == "challenge score"]
    wanted = challenge.score(challenge.earned(y, p.score >= 0.5, names))
    assert row["value"] == pytest.approx(float(wanted)) and row["label"] == "macro"
    assert row["ci_low"] < row["value"] < row["ci_high"] and row["condition"] == "2 leads"
    assert "without AFL, BBB" in row["note"] and row["chance"] == 0
    shown = tables.table([results.plain(row) for row in rows])
    assert "Challenge score" in shown and "2 leads" in shown


def test_fine_tuning_on_two_leads_sees_no_others(monkeypatch):
    n, seen = 12, {}
    lead, labels = np.ones((n, 50, 12), np.int16), np.eye(n, 2, dtype=bool)
    labels[:, 1] = True

    def split(name):
        return Records(
            dataset="own",
            split=name,
            rate=100,
            ecg=lead,
            length=np.full(n, 50, np.int32),
            signal_sha256=np.zeros((n, 32), np.uint8),
            lead_mask=np.ones((n, 12), bool),
            record_id=np.arange(n).astype(str),
            patient_id=np.arange(n).astype(str),
            report=[""] * n,
            person=np.full((n, 2), np.nan, np.float32),
            labels={"super": labels},
            classes={"super": ["A", "B"]},
        )

    def fit(params, state, train, validation, task, *, seed):
        seen.update(train=train, validation=validation)
        return types.SimpleNamespace(note="")

    config = types.SimpleNamespace(seed=0)
    experiment = types.SimpleNamespace(
        config=config, train=split("train"), validation=split("validation")
    )
    material = types.SimpleNamespace(
        experiment=experiment, finetuner=lambda name: types.SimpleNamespace(fit=fit)
    )
    subject = types.SimpleNamespace(material=material, name="trained", params=None, state=None)
    monkeypatch.setattr(
        scoring.finetune, "predict", lambda e, tuned, s: seen.update(test=s) or np.zeros((n, 2))
    )
    scoring.fit_finetune(subject, "super", "corrected", 1.0, 2).score(split("test"))
    for records in seen.values():
        assert records.leads == ["I", "II"] and not records.ecg[:, :, 2:].any()
    scoring.fit_finetune(subject, "super", "corrected", 1.0).score(split("test"))
    assert len(seen["test"].leads) == 12
