"""Untrained networks of several forms, and controls without a network."""

import agreement
import numpy as np
import pytest

from ecg_jax.errors import UserError
from ecg_jax.evaluation import controls, examine
from ecg_jax.evaluation.controls import Untrained
from ecg_jax.evaluation.subject import Control, Material
from ecg_jax.run.experiment import open_experiment


@pytest.fixture(scope="module")
def material(simulated):
    config = agreement.small(simulated)
    config.evaluate.pooling = "mean"
    return Material(open_experiment(config))


@pytest.fixture(autouse=True)
def few_batches(monkeypatch):
    calibrated = controls.calibrated
    monkeypatch.setattr(controls, "calibrated", lambda *start: calibrated(*start, batches=2))


def test_networks_and_leads_side_by_side(material):
    validation = material.experiment.validation
    of = {
        name: controls.untrained(material.experiment, form)(validation)
        for name, form in (
            ("one", Untrained()),
            ("two", Untrained(networks=2)),
            ("leads", Untrained(groups=controls.LEAD_GROUPS)),
            ("limb leads", Untrained(groups=controls.LEAD_GROUPS[:1])),
            ("wide", Untrained(model={"width": 16})),
            ("by record", Untrained(normalize="record")),
        )
    }
    D = of["one"].shape[1]
    assert of["one"].shape == (len(validation), D)
    np.testing.assert_array_equal(of["two"][:, :D], of["one"])
    assert np.abs(of["two"][:, D:] - of["one"]).max() > 1e-3
    assert of["leads"].shape[1] == 3 * D
    np.testing.assert_array_equal(of["leads"][:, :D], of["limb leads"])
    assert np.abs(of["limb leads"] - of["one"]).max() > 1e-3
    assert of["wide"].shape[1] == 16 * D // material.experiment.config.model.width
    assert np.abs(of["by record"] - of["one"]).max() > 1e-3
    # The limb leads' features do not change with the chest's.
    other = validation.take(np.arange(4))
    other.ecg[:, :, 6:] = 0
    encode = controls.untrained(material.experiment, Untrained(groups=controls.LEAD_GROUPS[:1]))
    np.testing.assert_allclose(encode(other), of["limb leads"][:4], atol=1e-5)


def test_what_needs_no_network(material):
    experiment = material.experiment
    assert controls.subject(material, "age and sex") is None  # simulated records are nobody's
    heart = controls.subject(material, "heart rate")
    assert isinstance(heart, Control)
    x = heart.probed(experiment.validation, "corrected")
    assert x.shape == (len(experiment.validation), 4) and np.isfinite(x).all()
    assert heart.probed(experiment.validation, "paper") is x
    reports = controls.subject(material, "report text")
    assert isinstance(reports, Control)
    width = material.tower.embed(["a"]).shape[1]
    assert reports.probed(experiment.validation, "corrected").shape[1] == width
    with pytest.raises(UserError, match="unknown control 'randm'"):
        controls.subject(material, "randm")


def test_age_and_sex(material):
    validation = material.experiment.validation.take([0, 1, 2])
    validation.person[:] = [[70, 1], [np.nan, 0], [30, np.nan]]
    x = controls._person(validation)
    np.testing.assert_array_equal(x[:, 3:], [[1, 1], [0, 1], [1, 0]])
    np.testing.assert_array_equal(x[0, :3], [70, 4900, 1])
    assert np.isfinite(x).all()


def test_a_control_is_probed_and_nothing_else(material):
    config = material.experiment.config
    config.evaluate.update(
        tasks=("findings",), protocols=("zero_shot", "linear_probe", "knn"), rules=("corrected",)
    )
    heart = controls.subject(material, "heart rate")
    assert isinstance(heart, Control)
    found = list(examine.examine(heart))
    assert {(p.protocol, p.split, p.encoder) for p in found} == {
        ("linear_probe", "validation", "heart rate"),
        ("linear_probe", "test", "heart rate"),
    }
