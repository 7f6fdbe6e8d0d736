"""From an evaluated run to scores of users' files: export, the Python face, `predict`."""

import json
import stat
import sys
from pathlib import Path

import agreement
import jax
import numpy as np
import pytest
from written_formats import FORMATS, write_all, write_csv, write_muse, write_wfdb

import ecg_jax
from ecg_jax import evaluate, export, predict, train
from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError
from ecg_jax.evaluation import heads as heads_lib
from ecg_jax.evaluation.figures import predictions
from ecg_jax.inference import words
from ecg_jax.models.resnet1d import STAGES
from ecg_jax.run import workdir
from ecg_jax.run.experiment import open_experiment
from ecg_jax.runtime import parallel
from ecg_jax.runtime.checkpoint import Checkpoints
from tfds_builders.simulated.simulator import simulate

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def run(simulated, tmp_path_factory, patch):
    """A run of random weights that was evaluated, and its experiment."""
    make = parallel.make_mesh
    patch.setattr(parallel, "make_mesh", lambda devices=None: make(devices or jax.devices()[:1]))
    patch.setitem(STAGES, 18, (1, 1))
    config = agreement.small(simulated)
    config.evaluate.update(retrieval=False, controls=(), rules=("corrected",))
    config.evaluate.protocols = ("zero_shot", "linear_probe")
    experiment = open_experiment(config)
    folder = tmp_path_factory.mktemp("run")
    workdir.claim(folder, experiment)
    best = Checkpoints(folder / "checkpoints" / "best", keep=1)
    best.save(1, evaluate.frozen(*experiment.init(jax.random.key(1))), {"select": 0.5})
    best.close()
    evaluate.evaluate(experiment, folder)
    return folder, experiment


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "model"
    export.export(run[0], folder)
    return folder


@pytest.fixture(scope="module")
def model(exported):
    return ecg_jax.load(exported)


@pytest.fixture(scope="module")
def ecg() -> np.ndarray:
    return simulate(np.random.default_rng(3), findings=["CLBBB", "SR"], seconds=6).ecg_uv


def recording(ecg, **changed) -> ecg_jax.Recording:
    return ecg_jax.from_array(ecg, **({"leads": LEADS, "rate": 500, "units": "uV"} | changed))


def test_what_an_export_holds(exported):
    names = {p.name for p in exported.iterdir()}
    assert names == {"model.safetensors", "heads.safetensors", "config.json"} | {
        "README.md",
        "FIGURES.md",
    }
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o644 for p in exported.iterdir())
    assert stat.S_IMODE(exported.stat().st_mode) == 0o755
    card = (exported / "README.md").read_text()
    assert len(card.splitlines()) < 50 and "not a medical device" in card
    assert "model.classify(recording, task='super')" in card and "macro AUROC" in card


def test_heads_score_as_the_evaluation_did(run, model):
    """Scores, thresholds and calibration are those of predictions.npz."""
    folder, experiment = run
    kept = {
        (p.protocol, p.split): p
        for p in predictions.read(folder / "predictions.npz")
        if p.encoder == "trained"
    }
    test = experiment.test
    encoded = model.exported.summarise(test.ecg[:8], test.lead_mask[:8])
    encoded = jax.tree.map(np.asarray, encoded)
    for protocol in ("linear_probe", "zero_shot"):
        head, p = model.head("super", protocol), kept[protocol, "test"]
        rows = {r: i for i, r in enumerate(p.record_id)}
        both = [(i, rows[r]) for i, r in enumerate(test.record_id[:8]) if r in rows]
        mine, theirs = np.array(both).T
        np.testing.assert_allclose(
            heads_lib.score(head, encoded)[mine], p.score[theirs], rtol=2e-3, atol=2e-4
        )
        np.testing.assert_array_equal(np.array(head.threshold, float), p.threshold)
        assert head.classes == p.classes
        v = kept[protocol, "validation"]
        assert head.records == len(v.y) and list(head.positives) == v.y.sum(0).tolist()
        probability = heads_lib.probability(v.score, head.slope, head.offset)
        # Platt's: as many as there are, but for his targets.
        np.testing.assert_allclose(probability.mean(0), v.y.mean(0), atol=0.02)


def test_one_recording_and_lists(model, ecg):
    one = recording(ecg)
    features = model.features(one)
    assert features.shape == (model.features([one] * 3).shape[1],)
    np.testing.assert_allclose(model.features([one] * 3)[2], features, rtol=1e-4, atol=1e-5)
    assert np.linalg.norm(model.embeddings(one)) == pytest.approx(1, abs=1e-4)
    scores = model.classify(one, task="super")
    assert scores.classes == model.head("super").classes and len(scores.yes) == 5
    assert "simulated" in scores.meaning and scores.figures[0].startswith("AUROC")
    assert "resampled from 500 to 100 Hz" in scores.notes
    assert "left bundle" in str(model.zero_shot(one, ["complete left bundle branch block."]))
    with pytest.raises(UserError, match="no head for rhythm by linear_probe: there are super by"):
        model.classify(one, task="rhythm")
    with pytest.raises(UserError, match="ndarray is no recording"):
        model.features(ecg)


def test_all_formats_give_the_same_scores(model, tmp_path):
    ecg = simulate(np.random.default_rng(4), findings=["IMI", "SR"], seconds=6).ecg_uv
    ecg = 4 * (ecg // 4)  # so that derived limb leads are whole microvolts, too
    one, two = ecg[:, 0].copy(), ecg[:, 1].copy()
    ecg[:, 2:6] = np.stack([two - one, -(one + two) // 2, one - two // 2, two - one // 2], axis=1)
    recordings = [ecg_jax.read(p, **said) for p, said in write_all(tmp_path, ecg, 500).values()]
    assert {r.format for r in recordings} == set(FORMATS)
    found = model.classify(recordings)
    wordings = {"inferior": ["inferior infarct, probably old."], "normal": ["normal ecg."]}
    cosines = model.zero_shot(recordings, wordings)
    for scores in (found, cosines):
        for other in scores[1:]:
            np.testing.assert_allclose(other.score, scores[0].score, atol=1e-3)
            np.testing.assert_allclose(other.probability, scores[0].probability, atol=1e-3)


def test_words(model, ecg):
    scores = model.zero_shot(recording(ecg), ["normal ecg.", "atrial fibrillation."])
    assert scores.task == "own words" and scores.yes == [None, None]
    assert ((scores.probability > 0) & (scores.probability < 1)).all()
    assert "against a normal ECG" in scores.meaning and "not validated" in scores.meaning
    for wrong, line in (([], "no class"), (["a", "a"], "named twice"), ({"a": []}, "one or more")):
        with pytest.raises(UserError, match=line):
            model.zero_shot(recording(ecg), wrong)
    with pytest.raises(UserError, match="a list of texts"):
        model.zero_shot(recording(ecg), "left bundle branch block")


def test_another_text_model_is_refused(exported, ecg, tmp_path):
    with pytest.raises(UserError, match=r"need the text model .* and .*neither"):
        ecg_jax.load(exported, text=tmp_path / "none").zero_shot(recording(ecg), ["a"])


def test_files_of_classes(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('AF = "atrial fibrillation."\n[mine.LBBB]\nreport = ["lbbb.", "clbbb."]\n')
    expected = {"AF": ["atrial fibrillation."], "LBBB": ["lbbb.", "clbbb."]}
    assert words.from_file(path) == expected
    for text, line in (
        ("AF = 3", "AF must be a list of texts"),
        ("[a]\nx='1'\n[b]\nx='2'", "in two sections"),
        ("[a.b]\nc=1", r"\[a\.b\] has no `report`"),
        ("", "no class"),
        ("a=", "not a prompt file in TOML"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=line):
            words.from_file(path)
    assert list(words.from_text("a b;  c ;")) == ["a b", "c"]


def test_arrays_that_are_no_input(model, ecg):
    encode, mask = model.exported.encode, np.ones((1, 12), bool)
    right = recording(ecg).window(100, 2.5).ecg[None]
    encode(right, mask)
    for wrong, leads, line in (
        (right / 1000, mask, r"encode takes int16 microvolts \[B, 250, 12\], not float64"),
        (right[:, :100], mask, r"not int16 \[1, 100, 12\]"),
        (right[0], mask, r"not int16 \[250, 12\]"),
        (right, mask[0], r"encode takes a lead mask, bool \[1, 12\]"),
        (right, ~mask, "has no lead"),
        (right, np.arange(12)[None] < 6, "V1 has samples, and is not in the lead mask"),
        (right // 100, mask, "are these millivolts"),
    ):
        with pytest.raises(UserError, match=line):
            encode(wrong, leads)


def test_leads_that_the_encoder_has_never_seen(model, ecg, monkeypatch):
    monkeypatch.setitem(model.exported.config["input"], "trained_leads", ["I", "II"])
    scores = model.classify(recording(ecg))
    assert any("was not trained on III, aVR" in note for note in scores.notes)
    with pytest.raises(UserError, match="the encoder was trained on I, II"):
        model.features(recording(ecg[:, 6:], leads=LEADS[6:]))


def test_a_run_is_a_model_too(run, model, ecg):
    loaded = ecg_jax.load(run[0])
    np.testing.assert_array_equal(
        loaded.classify(recording(ecg)).score, model.classify(recording(ecg)).score
    )


def test_a_model_without_heads(run, ecg, tmp_path, capsys, monkeypatch):
    (run[0] / "heads.npz").rename(tmp_path / "heads.npz")
    try:
        export.export(run[0], tmp_path / "bare")
    finally:
        (tmp_path / "heads.npz").rename(run[0] / "heads.npz")
    assert "the export can't classify" in capsys.readouterr().out
    bare = ecg_jax.load(tmp_path / "bare")
    with pytest.raises(UserError, match="this model has no heads: evaluate its run"):
        bare.classify(recording(ecg))
    scores = bare.zero_shot(recording(ecg), ["normal ecg."])
    assert np.isnan(scores.probability).all() and "no probability" in scores.meaning
    write_muse(tmp_path / "m.xml", ecg, 500)
    arguments = [tmp_path / "m.xml", "--model", tmp_path / "bare"]
    with pytest.raises(UserError, match="this model has no heads"):
        called(monkeypatch, *arguments)
    assert called(monkeypatch, *arguments, "--out", tmp_path / "out") == 0
    assert len(np.load(tmp_path / "out" / "features.npz")["features"]) == 1


def called(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["predict", *map(str, arguments)])
    return predict.main()


def test_one_file(exported, ecg, tmp_path, monkeypatch, capsys):
    write_muse(tmp_path / "m.xml", ecg, 500)
    out = tmp_path / "out"
    assert called(monkeypatch, tmp_path / "m.xml", "--model", exported, "--out", out) == 0
    shown = capsys.readouterr().out
    assert "m.xml: super, linear probe" in shown and "not a medical device" in shown
    told = json.loads((out / "predictions.json").read_text())
    (item,) = told["recordings"]
    assert item["format"] == "GE MUSE" and item["derived"] == ["III", "aVR", "aVL", "aVF"]
    assert {s["protocol"] for s in item["scores"]} == {"linear_probe", "zero_shot"}
    page = (out / item["page"]).read_text()
    assert "not a medical device" in page and "computed from the other limb leads" in page
    assert page.count("data-lead=") == 13 and "<script" not in page
    assert np.load(out / "features.npz")["features"].shape[0] == 1


def test_a_folder_with_a_bad_file(exported, ecg, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        write_wfdb(folder / f"{name}.hea", ecg, 500)
    (folder / "b.dat").write_bytes(b"short")
    write_csv(folder / "c.csv", ecg, 500)
    (folder / "notes.md").write_text("hello")
    arguments = [folder, "--model", exported, "--tasks", "super", "--out", tmp_path / "out"]
    assert called(monkeypatch, *arguments, "--rate", 500, "--units", "uV") == 1
    out, error = capsys.readouterr()
    assert error.count("\n") == 1 and "b.dat: truncated" in error
    assert "2 recordings, 1 can't be used" in out
    told = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [i["page"] for i in told["recordings"]] == ["a.hea.html", "c.csv.html"]
    assert list(told["errors"]) == [str(folder / "b.hea")]


def test_own_words_by_the_program(exported, ecg, tmp_path, monkeypatch, capsys):
    write_csv(tmp_path / "c.csv", ecg, 500)
    stated = ["--rate", "500", "--units", "uV", "--model", exported, tmp_path / "*.csv"]
    assert called(monkeypatch, *stated, "--classes", "pacemaker rhythm.; normal ecg.") == 0
    assert "pacemaker rhythm." in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["none.xml", "--model", "MODEL"], "none of 1 recordings can be used"),
        (["*.nothing", "--model", "MODEL"], "no file fits the pattern"),
        (["x.csv", "--model", "nowhere"], "holds no exported model"),
        (["x.csv", "--model", "MODEL", "--tasks", "form"], "--tasks form: this model has super"),
        (["x.csv", "--model", "MODEL", "--classes", " ; "], "no class"),
        (["x.csv", "--model", "MODEL", "--prompts", "none.toml"], "no such prompt file"),
    ],
)
def test_wrong_arguments(arguments, line, exported, monkeypatch):
    given = [exported if a == "MODEL" else a for a in arguments]
    with pytest.raises(UserError, match=line):
        called(monkeypatch, *given)


def test_a_training_starts_from_a_model(run, exported, model, tmp_path, capsys):
    """From an export and from a run; heads that do not fit start anew, another network is named."""
    config = run[1].config.copy_and_resolve_references()
    config.model.dim = 16
    for where in (exported, run[0]):
        config.init = str(where)
        params, state = train.begin(open_experiment(config), tmp_path)
        for ours, theirs in (
            (params["encoder"], model.exported.variables["params"]["encoder"]),
            (state["batch_stats"], model.exported.variables["method"]["batch_stats"]),
        ):
            jax.tree.map(np.testing.assert_array_equal, ours, theirs)
        assert params["ecg_head"]["out"]["kernel"].shape[-1] == 16
    told = capsys.readouterr().out
    assert "starts from" in told and "starts anew: params/ecg_head, params/text_head" in told
    last = tmp_path / "checkpoints" / "last"
    last.mkdir(parents=True)  # killed before its first checkpoint was whole
    assert train.begin(open_experiment(config), tmp_path) is not None
    (last / "1").mkdir()
    (last / "1" / "index.json").touch()
    assert train.begin(open_experiment(config), tmp_path) is None  # a run that goes on
    config.model.width = 4
    with pytest.raises(UserError, match="its encoder is another network than the config's"):
        train.begin(open_experiment(config), tmp_path / "new")
    config.init = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"--config\.init=.*holds no exported model"):
        train.begin(open_experiment(config), tmp_path / "new")


@pytest.mark.parametrize("name", ["zero_shot", "probe"])
def test_notebooks(name, exported, tmp_path, monkeypatch, capsys):
    """Their cells, one after the other, beside a model."""
    (tmp_path / "model").symlink_to(exported)
    monkeypatch.chdir(tmp_path)
    book = json.loads((ROOT / "examples" / f"{name}.ipynb").read_text())
    names: dict = {}
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec("".join(cell["source"]), names)
    assert "left bundle branch block" in capsys.readouterr().out
