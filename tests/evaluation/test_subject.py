"""What an encoder under evaluation is asked with."""

import types

import numpy as np

from ecg_jax.evaluation.subject import Material
from ecg_jax.text.prompts import ENSEMBLE, FINDING, WORDINGS


class Tower:
    """Remembers which texts it was given, template filled in."""

    def __init__(self):
        self.seen: set[str] = set()

    def embed(self, texts, template="{text}"):
        self.seen |= {template.replace("{text}", text) for text in texts}
        return np.ones((len(texts), 4), np.float32)


def test_wordings_get_the_template_of_the_reports_and_templates_stay(small):
    small.text.template = "The report says {text}"
    split = types.SimpleNamespace(dataset="ptb_xl", classes={"super": ["NORM"]})
    tower = Tower()
    experiment = types.SimpleNamespace(config=small, validation=split, tower=tower)
    sets = Material(experiment).prompts("super")  # pyright: ignore[reportArgumentType]
    own = (*WORDINGS, ENSEMBLE, FINDING)
    framed = {f"The report says {text}" for name in own for text in sets[name]["NORM"][0]}
    bare = {sets[name]["NORM"][0][0] for name in sets if name not in own}
    assert {"this ECG indicates normal ECG", "The report of the ECG is that normal ECG"} == bare
    assert tower.seen == framed | bare
