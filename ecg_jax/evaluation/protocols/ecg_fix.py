"""The rule "ecg_fix": the probe and the labels that "Evaluation of ECG Representations Must Be
Fixed" asks for (arXiv 2602.17531), beside ours.

Its probe is a logistic regression for each label, with one setting for all labels: features
standardised or as they are, C of `CS`, and positives weighing as they are or as much as negatives;
the setting with the lowest log-loss on validation. Its cleaned label set leaves out statements that
are too few or too doubtful to tell encoders apart. Balanced weights are seldom chosen: they make
rare labels' probabilities too high, which the log-loss punishes.
"""

import itertools

import numpy as np

from ecg_jax.evaluation.protocols import features, linear_probe

REMOVED = {
    "ptb_xl": (
        *("ILBBB", "PMI", "WPW", "SEHYP", "AFLT", "BIGU", "PSVT", "SVTAC", "TRIGU"),
        *("HVOLT", "PRC(S)", "STE_", "TAB_"),
    )
}
CS = (0.01, 0.1, 1.0, 10.0)


def kept(dataset: str, classes: list[str]) -> np.ndarray:
    """int [K]: columns of the classes that stay."""
    removed = REMOVED.get(dataset, ())
    return np.array([k for k, name in enumerate(classes) if name not in removed], int)


def fit(
    x_train: np.ndarray,
    y_train: np.ndarray,
    x_val: np.ndarray,
    y_val: np.ndarray,
    bases: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> tuple[linear_probe.Probe, str]:
    """The probe with the lowest log-loss on validation, and a note on what was chosen.

    Args:
      x_train: float [N, D].
      y_train: bool [N, K].
      x_val: float [M, D].
      y_val: bool [M, K].
      bases: see `linear_probe.principal`, of features standardised and as they are.

    Raises:
      UserError: see `linear_probe.fit`.
    """
    x_train, y_train = features.checked_split("training", x_train, y_train)
    x_val, y_val = features.checked_split("validation", x_val, y_val)
    fitted = features.check_fit(x_train, y_train, x_val, y_val)
    mean, deviation = features.statistics(x_train)
    forms = zip(
        ("standardised", "as they are"), (deviation, unscaled(deviation)), bases, strict=True
    )
    l2s = {1 / (c * len(x_train)): c for c in CS}
    best, least, note = None, np.inf, ""
    for (scaled, scale, basis), balanced in itertools.product(forms, (False, True)):
        for probe in linear_probe.solutions(
            x_train, y_train, fitted, mean, scale, tuple(l2s), basis, balanced=balanced
        ):
            loss = log_loss(y_val[:, fitted], linear_probe.predict(probe, x_val)[:, fitted])
            if loss < least:
                weights = "balanced" if balanced else "equal"
                best, least = probe, loss
                note = f"features {scaled}, C {l2s[probe.l2]:g}, {weights} weights, "
    assert best is not None
    return best, f"{note}validation log-loss {least:.4f}"


def unscaled(deviation: np.ndarray) -> np.ndarray:
    """A scale [D] that leaves features as they are, but for constant ones, which it drops."""
    return np.where(np.isinf(deviation), np.inf, 1).astype(np.float32)


def log_loss(y: np.ndarray, logit: np.ndarray) -> float:
    """Mean over records and labels [N, K]."""
    logit = np.asarray(logit, np.float64)
    return float(np.mean(np.logaddexp(0, np.where(y, -logit, logit))))
