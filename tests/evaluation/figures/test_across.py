"""Calibration and comparisons, from the predictions of several encoders."""

import numpy as np

from ecg_jax.evaluation.figures import across, results
from ecg_jax.evaluation.figures.predictions import Predictions


def predictions(encoder, quality, split="test", n=200, **fields):
    rng = np.random.default_rng(hash(split) % 7)
    y = rng.random((n, 2)) < (0.4, 0.2)
    noise = np.random.default_rng(len(encoder)).normal(size=(n, 2))
    names = np.array([f"{split}{i}" for i in range(n)])
    common = dict(task="super", dataset="ptb_xl", protocol="linear_probe", rule="corrected")
    common |= dict(fraction=1.0, condition="", classes=["NORM", "MI"], split=split)
    return Predictions(
        **common | fields,
        encoder=encoder,
        record_id=names,
        patient_id=names,
        y=y,
        score=(quality * y + noise).astype(np.float32),
        threshold=np.zeros(2),
    )


def test_the_first_encoder_against_all_others_of_a_protocol():
    found = across.compared(
        [
            predictions("trained", 3.0),
            predictions("random", 0.2),
            predictions("twins", 3.0),
            predictions("random", 0.2, condition="6 leads"),
            predictions("random", 0.2, protocol="knn"),
            predictions("few", 1.0, n=50),
            predictions("trained", 3.0, fraction=0.1),
            predictions("random", 0.2, fraction=0.1),
        ],
        "trained",
    )
    assert [(row["encoder"], row["against"]) for row in found] == [
        ("trained", "random"),
        ("trained", "twins"),
    ]
    better, same = found
    assert better["value"] > 0.2 and better["p_holm"] == 2 * better["p"] < 0.05
    assert better["metric"] == across.GAIN and "Holm's of 2" in better["note"]
    assert same["p_holm"] > 0.05
    assert across.sentence(better).startswith("trained better than random: +0.")
    assert set(results.COLUMNS) <= set(better)


def test_calibration_is_fitted_on_validation():
    test, validation = (predictions("trained", 2.0, split) for split in ("test", "validation"))
    assert across.calibrated([test]) == []
    rows = across.calibrated([test, validation])
    assert {(row["label"], row["metric"]) for row in rows} == {
        (label, metric) for label in ("macro", "NORM", "MI") for metric in ("brier", "ece")
    }
    by = {(row["label"], row["metric"]): row for row in rows}
    p = test.y[:, 0].mean()
    assert 0 < by["NORM", "brier"]["value"] < by["NORM", "brier"]["chance"]
    np.testing.assert_allclose(by["NORM", "brier"]["chance"], p * (1 - p))
    assert by["macro", "ece"]["value"] < 0.1
    # Scores of another scale have the same probabilities.
    scaled = [part._replace(score=50 * part.score) for part in (test, validation)]
    again = {(r["label"], r["metric"]): r["value"] for r in across.calibrated(scaled)}
    np.testing.assert_allclose(again["MI", "brier"], by["MI", "brier"]["value"], atol=1e-4)
