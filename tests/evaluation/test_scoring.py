"""From an encoder to predictions and rows: who is judged, what is chosen where, what is refused."""

import agreement
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from ecg_jax.errors import UserError
from ecg_jax.evaluation import examine, scoring, tabulate
from ecg_jax.evaluation.figures import metrics, predictions
from ecg_jax.evaluation.guards import label_check
from ecg_jax.evaluation.protocols import ecg_fix, features, retrieval, zero_shot
from ecg_jax.evaluation.subject import Material, Subject
from ecg_jax.report import pictures
from ecg_jax.run.experiment import Summary, open_experiment


@pytest.fixture(scope="module")
def subject(simulated):
    experiment = open_experiment(agreement.small(simulated))
    return Subject("trained", Material(experiment), *experiment.init(jax.random.key(0)))


def ask(subject, **fields):
    """The same encoder, asked for something else."""
    subject.material.experiment.config.evaluate.update(fields)
    return list(examine.examine(subject))


def test_each_rule_judges_its_records(subject):
    test = subject.material.experiment.test
    y = test.labels["super"]
    for rule, wanted in (("corrected", y.any(axis=1)), ("paper", y.sum(axis=1) == 1)):
        rows, labels = scoring.judged(test, "super", rule)
        np.testing.assert_array_equal(rows, np.flatnonzero(wanted))
        np.testing.assert_array_equal(labels, y[rows])
    assert 0 < len(scoring.judged(test, "super", "paper").rows) < y.any(axis=1).sum()
    with pytest.raises(UserError, match=r"simulated has no label set 'supr'.*did you mean super"):
        scoring.judged(test, "supr", "corrected")


def test_every_protocol_rule_share_and_condition_once(subject):
    found = ask(
        subject,
        tasks=("super",),
        protocols=("zero_shot", "linear_probe", "knn"),
        fractions=(0.1, 1.0),
        conditions=("6 leads", "SNR 0 dB"),
    )
    keys = [p.key for p in found]
    assert len(set(keys)) == len(keys)
    shown = {(p.protocol, p.rule, p.fraction, p.condition, p.split) for p in found}
    assert shown == {
        ("zero_shot", "corrected", None, "", "validation"),
        ("zero_shot", "corrected", None, "", "test"),
        ("zero_shot", "corrected", None, "6 leads", "test"),
        ("zero_shot", "corrected", None, "SNR 0 dB", "test"),
        ("zero_shot", "paper", None, "", "test"),
        ("linear_probe", "corrected", 0.1, "", "test"),
        ("linear_probe", "corrected", 1.0, "", "validation"),
        ("linear_probe", "corrected", 1.0, "", "test"),
        ("linear_probe", "corrected", 1.0, "6 leads", "test"),
        ("linear_probe", "corrected", 1.0, "SNR 0 dB", "test"),
        ("linear_probe", "paper", 1.0, "", "test"),
        ("knn", "corrected", 1.0, "", "test"),
    }
    by = {(p.protocol, p.rule, p.fraction, p.condition, p.split): p for p in found}
    plain = by["linear_probe", "corrected", 1.0, "", "test"]
    harder = by["linear_probe", "corrected", 1.0, "6 leads", "test"]
    np.testing.assert_array_equal(plain.threshold, harder.threshold)
    np.testing.assert_array_equal(plain.y, harder.y)
    assert np.abs(plain.score - harder.score).max() > 1e-3
    few = by["linear_probe", "corrected", 0.1, "", "test"]
    assert "training records of" in few.note
    assert "the template of ETP" in by["zero_shot", "paper", None, "", "test"].note


def test_the_corrected_linear_probe_does_not_see_how_long_features_are(subject, monkeypatch):
    asked = {"protocols": ("linear_probe",), "fractions": (1.0,), "conditions": ()}
    plain = ask(subject, **asked)
    encode = type(subject).encode

    def louder(self, split):
        encoded = encode(self, split)
        factor = np.random.default_rng(0).choice([0.5, 1.0, 2.0], (len(split), 1))  # exact
        return encoded._replace(features=(encoded.features * factor).astype(np.float32))

    monkeypatch.setattr(type(subject), "encode", louder)
    monkeypatch.setattr(subject, "probes", {})
    for a, b in zip(plain, ask(subject, **asked), strict=True):
        assert np.array_equal(a.score, b.score) == (a.rule == "corrected")
        assert ("each of length one" in a.note) == (a.rule == "corrected")


def test_features_pooled():
    mean, *pools = np.array([[[3.0, 4.0]], [[0.0, 2.0]], [[5.0, 0.0]]])
    encoded = Summary(mean, np.array([[9.0, 9.0]]), tuple(pools))
    options = ConfigDict({"pooling": "all", "l2_normalize": False})
    np.testing.assert_allclose(features.pooled(encoded, options), [[0.6, 0.8, 0, 1, 1, 0]])
    options.pooling = "mean"
    np.testing.assert_allclose(features.pooled(encoded, options), [[3, 4]])
    options.l2_normalize = True
    np.testing.assert_allclose(features.pooled(encoded, options), [[0.6, 0.8]])


def test_what_is_pooled_is_of_the_map(subject):
    split = subject.material.experiment.validation
    maps = subject.map(split).astype(np.float32)
    encoded = subject.encode(split)
    last, earlier = (encoded.features, *encoded.pools[:2]), encoded.pools[2:]
    for mean, deviation, maximum in zip(*[iter(earlier)] * 3, strict=True):
        assert mean.shape == deviation.shape == maximum.shape and len(mean) == len(split)
        assert (maximum >= mean).all() and (deviation >= 0).all()
    assert len({x.shape[1] for x in earlier}) == 2
    for found, made in zip(
        last, (maps.mean(axis=1), maps.std(axis=1), maps.max(axis=1)), strict=True
    ):
        np.testing.assert_allclose(found, made, rtol=5e-3, atol=5e-3)
    assert subject.map(split) is subject.map(split)
    subject.forget_maps()
    assert not subject._maps


def test_ecg_fix_leaves_labels_out(subject, monkeypatch):
    monkeypatch.setitem(ecg_fix.REMOVED, "simulated", ("MI",))
    found = ask(
        subject,
        tasks=("super",),
        protocols=("zero_shot", "linear_probe", "attention_probe"),
        rules=("corrected", "ecg_fix"),
        fractions=(0.2, 1.0),
        conditions=(),
    )
    test = subject.material.experiment.test
    kept = [k for k, name in enumerate(test.classes["super"]) if name != "MI"]
    fixed = [p for p in found if p.rule == "ecg_fix"]
    assert {(p.protocol, p.fraction) for p in fixed} == {("linear_probe", 0.2), ("linear_probe", 1)}
    for p in fixed:
        assert p.classes == [test.classes["super"][k] for k in kept]
        y = test.labels["super"][:, kept]
        np.testing.assert_array_equal(p.y, y[y.any(axis=1)])
        assert "validation log-loss" in p.note
    attended = [p for p in found if p.protocol == "attention_probe"]
    assert {(p.rule, p.split) for p in attended} == {
        ("corrected", s) for s in ("validation", "test")
    }
    subject.material.experiment.config.evaluate.rules = ("corrected", "paper")


def test_features_of_length_zero_stay_zero():
    x = np.array([[3.0, 4.0], [0.0, 0.0]], np.float32)
    np.testing.assert_allclose(features.l2_normalize(x), [[0.6, 0.8], [0, 0]])


def test_choices_do_not_look_at_the_test_split(subject, monkeypatch):
    """Shuffled test labels change figures, but neither scores nor thresholds."""
    plain = ask(subject, protocols=("zero_shot", "linear_probe", "knn"), conditions=())
    test = subject.material.experiment.test
    rng = np.random.default_rng(0)
    monkeypatch.setitem(test.labels, "super", rng.permutation(test.labels["super"]))
    monkeypatch.setattr(subject, "probes", {})
    for a, b in zip(plain, ask(subject), strict=True):
        np.testing.assert_array_equal(a.threshold, b.threshold)
        assert a.note == b.note
        score = dict(zip(a.record_id, a.score, strict=True))
        both = [
            (score[name], s) for name, s in zip(b.record_id, b.score, strict=True) if name in score
        ]
        assert both
        assert all(np.array_equal(x, y) for x, y in both)


def test_scores_that_rank_another_class_better_stop_the_evaluation(subject, monkeypatch):
    """Label columns that look misplaced, whatever the probe was fitted on."""
    split = subject.material.experiment.test
    i, j = (split.classes["super"].index(name) for name in ("MI", "STTC"))
    order = np.arange(len(split.classes["super"]))
    order[[i, j]] = j, i
    planted = scoring.Fitted(lambda of: of.labels["super"][:, order].astype(np.float32), "")
    monkeypatch.setattr(scoring, "fit_linear_probe", lambda *_: planted)
    # There are fewer records than the check otherwise asks for.
    monkeypatch.setattr(label_check, "_enough", lambda y, *_: y.any() and not y.all())
    asked = dict(protocols=("zero_shot",), conditions=())
    with pytest.raises(UserError, match=r"simulated test, super: .*(MI|STTC)"):
        ask(subject, **asked)
    monkeypatch.setattr(subject, "name", "random")  # an untrained one may well mistake them
    assert ask(subject, **asked)


def test_rows_of_both_rules(subject):
    asked = dict(protocols=("zero_shot", "linear_probe"), fractions=(1.0,), conditions=())
    test = [p for p in ask(subject, **asked) if p.split == "test"]
    for p in test:  # ETP's figures of zero-shot alone fit nothing else than thresholds of the test
        notes = [row["note"] for row in tabulate.rows(p, paper="etp", draws=20)]
        on_test = p.rule == "paper" and p.protocol == "zero_shot"
        assert all(("on these same records" in note) == on_test for note in notes)
    by = {p.rule: p for p in test if p.protocol == "linear_probe"}
    rows = {
        (rule, paper): tabulate.rows(by[rule], paper=paper, draws=20)
        for rule in by
        for paper in ("etp", "mets")
    }
    metrics = {key: {row["metric"] for row in value} for key, value in rows.items()}
    assert metrics["corrected", "etp"] == {"auroc", "auprc", "f1", "accuracy"}
    assert metrics["paper", "etp"] == {"auroc", "f1", "accuracy"}
    assert metrics["paper", "mets"] == {"precision", "recall", "f1", "accuracy"}
    extras = {"rule", "fraction", "condition", "choice", "chance", "positives", "note"}
    assert all(extras <= set(row) for value in rows.values() for row in value)


def test_through_the_training_reports_and_with_the_own_report(subject, monkeypatch):
    config = subject.material.experiment.config.evaluate
    asked = dict(protocols=("zero_shot_reports", "own_report"), conditions=("6 leads",))
    found = ask(subject, rules=("corrected",), **asked)
    config.update(rules=("corrected", "paper"))
    by = {(p.protocol, p.condition, p.split): p for p in found}
    assert set(by) == {
        ("zero_shot_reports", "", "validation"),
        ("zero_shot_reports", "", "test"),
        ("zero_shot_reports", "6 leads", "test"),
        ("own_report", "", "test"),
    }
    bank, through = subject.bank, by["zero_shot_reports", "", "test"]
    assert bank is not None and f"over {len(bank.count):,} training reports" in through.note
    assert bank.count.sum() == sum(map(bool, subject.material.experiment.train.report))
    own = by["own_report", "", "test"]
    assert np.nanmean(metrics.auroc(own.y, own.score)) > 0.8  # no encoder is trained here
    monkeypatch.setattr(subject, "name", "random")
    assert {p.protocol for p in ask(subject, **asked)} == {"zero_shot_reports"}


def test_prompts_may_be_centred_and_written_anew(subject):
    plain = scoring.fit_zero_shot(subject, "super", "paper")
    assert "centred" not in plain.note
    sets, train = subject.centred_classes("super"), subject.material.sample
    assert set(sets) == {*subject.classes("super"), "report and training reports"}
    centred = zero_shot.centred(subject.encode(train).embedding, subject.mean)
    assert np.linalg.norm(centred.mean(axis=0)) < np.linalg.norm(subject.mean)
    assert scoring.fit_zero_shot(subject, "super", "corrected").note.startswith("prompts ")


def test_the_null_is_drawn_by_random_heads_and_the_same_choice(subject):
    config = subject.material.experiment.config.evaluate
    config.update(protocols=("zero_shot", "zero_shot_reports"), null_draws=3)
    rows = tabulate.null_rows(subject)
    config.update(null_draws=0)
    assert {(row["protocol"], row["encoder"]) for row in rows} == {
        ("zero_shot", "random heads"),
        ("zero_shot", "random heads, fixed prompts"),
        ("zero_shot_reports", "random heads"),
    }
    assert all(row["ci_low"] < row["value"] < row["ci_high"] for row in rows)
    assert all("3 draws" in row["note"] and row["label"] == "macro" for row in rows)
    assert not tabulate.null_rows(subject)


def test_without_training_reports_zero_shot_is_plain(subject, monkeypatch, capsys):
    silent = Subject(
        "trained", Material(subject.material.experiment), subject.params, subject.state
    )
    config = subject.material.experiment.config.evaluate
    monkeypatch.setitem(config, "bank", "nowhere")
    assert "as they are" in scoring.fit_zero_shot(silent, "super", "corrected").note
    assert "no training reports to go by:" in capsys.readouterr().out
    assert not ask(silent, protocols=("zero_shot_reports",), conditions=())


def test_without_single_labels_there_is_the_corrected_rule_alone(subject, monkeypatch, capsys):
    for split in ("train", "validation", "test"):
        records = getattr(subject.material.experiment, split)
        y = records.labels["super"].copy()
        y[:, :2] |= y.any(axis=1, keepdims=True)
        y[0, 0] = False
        y[0, 2:4] = True
        monkeypatch.setitem(records.labels, "super", y)
    found = ask(subject, protocols=("zero_shot",), conditions=())
    assert {p.rule for p in found} == {"corrected"}
    line = (
        "trained, super: no figures by the paper's rule: no record of simulated validation has ex"
    )
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    "asked",
    [
        dict(protocols=("knn",)),
        dict(protocols=("linear_probe",), fractions=(0.5,)),
        dict(protocols=("zero_shot",), rules=("paper",)),
    ],
)
def test_harder_records_are_made_for_protocols_that_are_judged_on_them(
    subject, monkeypatch, capsys, asked
):
    monkeypatch.setattr(subject.material, "conditions", {"6 leads": None})  # none is applied
    config = subject.material.experiment.config.evaluate
    before = config.rules
    found = ask(subject, conditions=("6 leads",), **asked)
    config.update(rules=before)
    assert {p.condition for p in found} == {""}
    assert f"{subject.name}: no harder records: they are for zero_shot" in capsys.readouterr().out


def test_predictions_are_read_back_as_they_were(subject, tmp_path):
    found = ask(subject, protocols=("zero_shot", "linear_probe"))
    path = tmp_path / "predictions.npz"
    predictions.write(found, path)
    for a, b in zip(found, predictions.read(path), strict=True):
        assert a.key == b.key
        assert (a.classes, a.note) == (b.classes, b.note)
        for name in predictions.ARRAYS:
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert predictions.read(tmp_path / "none.npz") == []
    with pytest.raises(UserError, match="cannot write"):
        predictions.write(found, path / "predictions.npz")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="is damaged"):
        predictions.read(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"protocols": ("zero_shoot",)}, "unknown protocol 'zero_shoot': there are zero_shot, "),
        ({"conditions": ("5 leads",)}, "unknown condition '5 leads': there are all, 12 leads, "),
        ({"rules": ("papr",)}, "unknown rule 'papr': there are corrected, paper"),
        ({"finetune_rules": ("papr",)}, "unknown rule 'papr': there are corrected, paper"),
        ({"tasks": ("super", "super")}, "evaluate.tasks=super,super: name each once"),
        ({"fractions": (1.0, 1)}, "evaluate.fractions=1.0,1: name each once"),
        ({"protocols": ("knn", "knn")}, "evaluate.protocols=knn,knn: name each once"),
    ],
)
def test_what_is_asked_for_exists_and_is_asked_for_once(simulated, fields, message):
    config = agreement.small(simulated)
    examine.check(config)
    config.evaluate.update(fields)
    with pytest.raises(UserError, match=message):
        examine.check(config)


def test_a_failure_is_not_taken_for_a_rule_without_figures(subject, monkeypatch):
    def failing(*_):
        raise UserError("the loss is nan")

    monkeypatch.setattr(scoring, "fit_knn", failing)
    monkeypatch.setattr(scoring, "fit_finetune", lambda *_: failing())
    for protocol in ("knn", "finetune"):
        with pytest.raises(UserError, match="the loss is nan"):
            ask(subject, protocols=(protocol,), finetune_rules=("paper",), conditions=())
    subject.material.experiment.config.evaluate.finetune_rules = scoring.RULES


def test_the_papers_rule_asks_with_the_papers_template(subject):
    notes = {}
    for paper in ("mets", "etp"):
        found = ask(subject, paper=paper, protocols=("zero_shot",), conditions=())
        notes[paper] = next(p.note for p in found if p.rule == "paper")
    assert notes == {"etp": "the template of ETP", "mets": "the template of METS"}


def test_retrieval_has_both_directions(subject):
    rows = tabulate.retrieval_rows(subject)
    assert {row["label"] for row in rows} == {"ecg_to_report", "report_to_ecg"}
    assert {row["metric"] for row in rows} == set(retrieval.METRICS)


def test_a_recording_has_the_wordings_that_lie_nearest(subject):
    found = ask(subject, protocols=("zero_shot",), conditions=())
    drawn = pictures.samples(subject, "super", found)
    test = subject.material.experiment.test
    wordings = subject.material.prompts("super")["clinical"].values()
    texts = [text for texts, _ in wordings for text in texts]
    unit = [
        x / np.linalg.norm(x, axis=1, keepdims=True)
        for x in (
            np.concatenate([subject.embed(x) for _, x in wordings]),
            subject.encode(test).embedding,
        )
    ]
    cosine = unit[1] @ unit[0].T
    assert drawn
    for sample in drawn:
        own = cosine[list(test.record_id).index(sample.record_id)]
        names, values = zip(*sample.prompts, strict=True)
        np.testing.assert_allclose(values, np.sort(own)[::-1][: pictures.SCORES], atol=1e-6)
        np.testing.assert_allclose([own[texts.index(name)] for name in names], values, atol=1e-6)


def test_samples_are_ordered_by_the_place_of_their_true_classes():
    y = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1]], bool)
    score = np.array([[3, 1, 1], [2, 1, 3], [1, 1, 2]], np.float32)
    np.testing.assert_array_equal(pictures.mean_place(y, score), [1, 2, 2])
