"""Which texts a step's records meet."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest

from ecg_jax.data.resident import Batch
from ecg_jax.errors import UserError
from ecg_jax.run.experiment import open_experiment
from ecg_jax.training import feed


class Tower:
    """A text's embedding is how long it is; words in capitals are unknown to it."""

    name = "mine"

    def embed(self, texts, template, names):
        assert template == "{text}" and len(names) == len(texts)
        return np.array([[len(text)] for text in texts], np.float32)

    def unknown(self, texts):
        return np.array([np.mean([word.isupper() for word in t.split()]) for t in texts])


def met(config, tables, row, times):
    """The embeddings that the record of a row meets in a batch that holds it so many times."""
    rows = jnp.full(times, row, jnp.int32)
    batch = Batch(jnp.zeros((times, 10, 12), jnp.int16), jnp.ones((times, 12), bool), rows)
    return np.asarray(feed.view(config, feed.Data(batch, tables), jnp.int32(0), 1).text)[:, 0]


def test_a_run_on_both_languages_meets_either_of_a_records_own(small):
    small.text.language = "both"
    train = open_experiment(small).train.take(np.arange(4))
    german = ["sinusrhythmus normales ekg", "linksschenkelblock", "", "vorhofflimmern"]
    train = dataclasses.replace(train, report=np.array(german))
    experiment = types.SimpleNamespace(config=small, tower=Tower())
    kept, texts, text, _ = feed._texts(experiment, train)  # pyright: ignore[reportArgumentType]
    assert len(kept) == 3 and text.shape == (2, 3)
    english = ["sinus rhythm. normal ecg.", "left bundle branch block.", "atrial fibrillation."]
    np.testing.assert_array_equal(texts[text[0], 0], [*map(len, english)])
    np.testing.assert_array_equal(texts[text[1], 0], [len(g) for g in german if g])
    tables = feed.Tables(*map(jnp.asarray, (texts, text, np.zeros(3, np.int32))))
    assert set(met(small, tables, 0, 64)) == {len(english[0]), len(german[0])}


def test_a_share_of_the_texts_is_a_sentence_of_the_records_own_report(small):
    small.text.sentences = 0.5
    train = open_experiment(small).train.take(np.arange(3))
    reports = ["sinusrhythmus normales ekg", "vorhofflimmern", ""]
    train = dataclasses.replace(train, report=np.array(reports))
    experiment = types.SimpleNamespace(config=small, tower=Tower())
    kept, texts, text, sentence = feed._texts(experiment, train)  # pyright: ignore[reportArgumentType]
    assert len(kept) == 2 and sentence.shape == (2, 2) and sentence[1, 1] == -1
    patient = np.zeros(2, np.int32)
    tables = feed.Tables(*map(jnp.asarray, (texts, text, patient, sentence)))
    whole, *alone = map(len, ("sinus rhythm. normal ecg.", "sinus rhythm.", "normal ecg."))
    seen = met(small, tables, 0, 4000)
    shares = [(seen == length).mean() for length in (whole, *alone)]
    np.testing.assert_allclose(shares, [0.5, 0.25, 0.25], atol=0.03)
    assert set(met(small, tables, 1, 64)) == {len("atrial fibrillation.")}
    small.text.language, small.text.sentences = "both", 1.0
    _, texts, text, sentence = feed._texts(experiment, train)  # pyright: ignore[reportArgumentType]
    tables = feed.Tables(*map(jnp.asarray, (texts, text, patient, sentence)))
    assert set(met(small, tables, 1, 64)) == {len("atrial fibrillation."), len("vorhofflimmern.")}


def of_reports(small, reports):
    train = open_experiment(small).train.take(np.arange(len(reports)))
    train = dataclasses.replace(train, report=np.array(reports))
    experiment = types.SimpleNamespace(config=small, tower=Tower())
    return train, feed._texts(experiment, train)  # pyright: ignore[reportArgumentType]


def test_reports_that_the_text_model_cannot_read(small, capsys):
    known = [f"sinus rhythm {i}" for i in range(30)]
    of_reports(small, known)
    assert "unknown" not in capsys.readouterr().out
    train, _ = of_reports(small, [*known, "Sinus UNREAD", "Aaa BBB CCC"])
    assert (
        "3.65% of the reports' tokens are unknown to mine, and 1 of 32 distinct reports are mostly "
        f"so, such as a text of the report of simulated record {train.record_id[31]}"
    ) in capsys.readouterr().out
    with pytest.raises(UserError, match=r"unknown to mine, .*they would share one embedding"):
        of_reports(small, [*known[:9], "Aaa BBB CCC", "Ddd EEE FFF"])
