"""The rows of delineation: an encoder frozen and free, from shares of the labels.

From a random encoder the free one is supervised training from scratch.
"""

from typing import Any

from ecg_jax.data.leads import LEADS
from ecg_jax.evaluation.figures import waves
from ecg_jax.evaluation.protocols.delineate import Delineator, share
from ecg_jax.evaluation.subject import Subject

TASK = "waves"
FREE = {"random": "supervised"}  # what a free encoder is called, if not by its start's name


def rows(subject: Subject, delineator: Delineator) -> list[dict[str, Any]]:
    """Figures of the test records, of all leads together and of lead II, frozen and free, for every
    share of the labels that config.evaluate.fractions names.

    Raises:
      UserError: see `Delineator`.
    """
    experiment = subject.material.experiment
    config, test, table = experiment.config, experiment.test, []
    assert test.segments is not None and test.segments_mask is not None
    for fraction in config.evaluate.fractions:
        train, note = share(experiment.train, fraction, config.seed)
        for free in (False, True):
            name = FREE.get(subject.name, subject.name) if free else f"{subject.name}, frozen"
            print(f"{name}, delineate: {note}", flush=True)
            fitted = delineator.fit(
                subject.params, subject.state, train, free=free, seed=config.seed
            )
            found = delineator.predict(fitted, test)
            for leads, task in ((slice(None), TASK), ([LEADS.index("II")], f"{TASK}, lead II")):
                each = [
                    waves.counts(a[:, leads], b[:, leads], known[:, leads], test.rate)
                    for a, b, known in zip(found, test.segments, test.segments_mask, strict=True)
                ]
                table += waves.rows(
                    each,
                    test.patient_id,
                    config.evaluate.draws,
                    task=task,
                    dataset=test.dataset,
                    split="test",
                    protocol="delineate",
                    encoder=name,
                    rule="",
                    fraction=fraction,
                    condition="",
                    choice=f"{note}; {fitted.note}",
                )
    return table
