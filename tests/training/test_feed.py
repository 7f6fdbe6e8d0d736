"""Which texts a step's records meet."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np

from ecg_jax.data.resident import Batch
from ecg_jax.run.experiment import open_experiment
from ecg_jax.training import feed


class Tower:
    """A text's embedding is how long it is."""

    def embed(self, texts, template):
        assert template == "{text}"
        return np.array([[len(text)] for text in texts], np.float32)


def test_a_run_on_both_languages_meets_either_of_a_records_own(small):
    small.text.language = "both"
    train = open_experiment(small).train.take(np.arange(4))
    german = ["sinusrhythmus normales ekg", "linksschenkelblock", "", "vorhofflimmern"]
    train = dataclasses.replace(train, report=np.array(german))
    experiment = types.SimpleNamespace(config=small, tower=Tower())
    kept, texts, text = feed._texts(experiment, train)  # pyright: ignore[reportArgumentType]
    assert len(kept) == 3 and text.shape == (2, 3)
    english = ["sinus rhythm. normal ecg.", "left bundle branch block.", "atrial fibrillation."]
    np.testing.assert_array_equal(texts[text[0], 0], [*map(len, english)])
    np.testing.assert_array_equal(texts[text[1], 0], [len(g) for g in german if g])
    rows = jnp.zeros(64, jnp.int32)
    batch = Batch(jnp.zeros((64, 10, 12), jnp.int16), jnp.ones((64, 12), bool), rows)
    tables = feed.Tables(*map(jnp.asarray, (texts, text, np.zeros(3, np.int32))))
    met = feed.view(small, feed.Data(batch, tables), jnp.int32(0), 1)
    assert set(np.asarray(met.text)[:, 0]) == {len(english[0]), len(german[0])}
