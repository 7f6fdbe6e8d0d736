"""The probe of arXiv 2602.17531, against scikit-learn's as its own code has it."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ecg_jax.data.classes import TASKS
from ecg_jax.evaluation.protocols import ecg_fix, linear_probe


def sample(n, seed):
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 5))
    logit = hidden @ np.random.default_rng(9).normal(size=(5, 2)) + rng.logistic(size=(n, 2))
    return (hidden * (0.3, 1, 1, 2, 4) + 1).astype(np.float32), logit > (0, 1.5)


def test_the_same_choice_as_its_own_code():
    x, y = sample(80, 0)
    x_val, y_val = sample(60, 1)
    probe, note = ecg_fix.fit(x, y, x_val, y_val)
    losses = {}
    for scaled in (True, False):
        for c in ecg_fix.CS:
            for weights, name in ((None, "equal"), ("balanced", "balanced")):
                each = LogisticRegression(C=c, class_weight=weights, max_iter=10_000, tol=1e-8)
                steps = ([StandardScaler()] if scaled else []) + [OneVsRestClassifier(each)]
                p = make_pipeline(*steps).fit(x, y).predict_proba(x_val)
                key = f"features {'standardised' if scaled else 'as they are'}, C {c:g}, {name}"
                losses[key] = np.mean([log_loss(y_val[:, k], p[:, k]) for k in range(2)]), p
    best = min(losses, key=lambda key: losses[key][0])
    assert note.startswith(best)
    assert note.endswith(f"log-loss {losses[best][0]:.4f}")
    found = 1 / (1 + np.exp(-linear_probe.predict(probe, x_val)))
    np.testing.assert_allclose(found, losses[best][1], atol=2e-3)


def test_the_labels_that_stay():
    for task, removed in (("super", 0), ("sub", 4), ("rhythm", 5), ("form", 4), ("all", 13)):
        classes = list(TASKS["ptb_xl"][task].classes)
        assert len(ecg_fix.kept("ptb_xl", classes)) == len(classes) - removed
    assert len(ecg_fix.kept("mit_bih", ["WPW"])) == 1
