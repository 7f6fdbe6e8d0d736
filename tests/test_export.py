"""An exported model gives the checkpoint's outputs, and a folder that does not fit is refused."""

import json
import os
import shutil
import sys
from pathlib import Path

import huggingface_hub
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import ecg_jax
from ecg_jax import evaluate, export
from ecg_jax.data import normalize
from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError
from ecg_jax.evaluation.protocols import report_bank
from ecg_jax.inference import hub
from ecg_jax.models.resnet1d import STAGES
from ecg_jax.run import exported, workdir
from ecg_jax.run.experiment import open_experiment
from ecg_jax.runtime.checkpoint import Checkpoints


@pytest.fixture
def run(small, tmp_path, monkeypatch):
    """A run's folder with a best checkpoint of random weights, and these weights."""
    monkeypatch.setitem(STAGES, 18, (1, 1))
    experiment = open_experiment(small)
    folder = tmp_path / "run"
    workdir.claim(folder, experiment)
    variables = evaluate.frozen(*experiment.init(jax.random.key(5)))
    saves = Checkpoints(folder / "checkpoints" / "best", keep=1)
    saves.save(7, variables, {"select": 0.5})
    saves.close()
    row = dict(task="super", dataset="simulated", split="test", protocol="zero_shot")
    row |= dict(encoder="trained", label="macro", metric="auroc", value=0.625, n=40)
    row |= dict(ci_low=0.5, ci_high=0.75, chance=0.5, note="", step=7)
    (folder / "results.json").write_text(json.dumps([row]))
    return folder, experiment, variables


def test_what_is_read_back_encodes_as_the_checkpoint_does(run, tmp_path):
    folder, experiment, variables = run
    export.export(folder, tmp_path / "model")
    model = export.load_exported(tmp_path / "model")
    jax.tree.map(np.testing.assert_array_equal, model.variables, variables)
    ecg = np.random.default_rng(0).integers(-900, 900, (3, 1000, 12), np.int16)
    mask = np.ones((3, 12), bool)
    x = normalize.normalize(ecg, mask, experiment.config.normalize)
    method = experiment.method
    expected = method.encode(variables["params"], variables["method"], x, mask)
    for ours, theirs in zip(model.encode(ecg, mask), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    text = np.random.default_rng(1).normal(size=(2, experiment.tower.width)).astype(np.float32)
    np.testing.assert_allclose(
        model.encode_text(text), method.encode_text(variables["params"], text), atol=1e-6
    )


def test_the_folder_says_what_it_is(run, tmp_path):
    folder, experiment, variables = run
    export.export(folder, tmp_path / "model")
    names = {p.name for p in (tmp_path / "model").iterdir()}
    assert names == {"model.safetensors", "config.json", "README.md", "FIGURES.md"}
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["input"]["leads"] == list(LEADS)
    assert (config["input"]["rate_hz"], config["input"]["units"]) == (100, "uV")
    assert config["text_tower"]["sha256"] == experiment.tower.sha256
    assert config["provenance"]["step"] == 7
    arrays = load_file(tmp_path / "model" / "model.safetensors")
    kernel = variables["params"]["encoder"]["conv_stem"]["kernel"]
    np.testing.assert_array_equal(arrays["params/encoder/conv_stem/kernel"], kernel)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "0.625 (0.500-0.750)" in card
    assert "stand-in" in card


@pytest.mark.parametrize("step", [7, 8])
def test_the_bank_of_this_checkpoint_goes_with_it(run, tmp_path, step):
    whole = np.arange(6, dtype=np.int32)
    bank = report_bank.Bank(np.ones((2, 4), np.float32), whole[:2], np.eye(4), whole[:3], whole[:2])
    report_bank.write(bank, step, run[0] / "bank.npz")
    export.export(run[0], tmp_path / "model")
    (run[0] / "bank.npz").unlink()
    model = export.load_exported(tmp_path / "model")
    assert ("bank" in (tmp_path / "model" / "README.md").read_text()) == (step == 7)
    if step == 8:
        assert model.bank is None
        return
    assert model.bank is not None
    for ours, theirs in zip(model.bank, bank, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_figures_of_another_checkpoint_are_not_the_cards(run, tmp_path):
    path = run[0] / "results.json"
    path.write_text(path.read_text().replace('"step": 7', '"step": 5'))
    export.export(run[0], tmp_path / "model")
    assert "Not evaluated." in (tmp_path / "model" / "README.md").read_text()
    path.write_text("[{")
    with pytest.raises(UserError, match=r"results.json is damaged"):
        export.export(run[0], tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_folder_with_something_in_it_is_refused(run, tmp_path):
    out = tmp_path / "model"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="is not an empty folder"):
        export.export(run[0], out)
    assert [p.name for p in out.iterdir()] == ["mine.txt"]


def test_a_folder_without_a_checkpoint(run, tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        export.export(tmp_path, tmp_path / "model")
    (run[0] / "checkpoints" / "best").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="has no best checkpoint"):
        export.export(run[0], tmp_path / "model")
    assert not (tmp_path / "model").exists()


def reseal(folder):
    """Makes config.json vouch for the weights that are there now."""
    config = json.loads((folder / "config.json").read_text())
    config["weights_sha256"] = exported.sha256_of(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(exported.sealed(config)))


def test_weights_that_do_not_fit_are_refused(run, tmp_path):
    folder = tmp_path / "model"
    export.export(run[0], folder)
    weights = folder / "model.safetensors"
    arrays = load_file(weights)
    stem = "params/encoder/conv_stem/kernel"
    changed = {name: array + 1 for name, array in arrays.items()}
    save_file(changed, weights)
    with pytest.raises(UserError, match="is damaged: its sha256"):
        export.load_exported(folder)
    others = {"missing": {n: a for n, a in arrays.items() if n != stem}}
    others["unexpected"] = {**arrays, "params/encoder/extra": np.zeros(3, np.float32)}
    others["misshaped"] = {**arrays, stem: arrays[stem][:3]}
    for name, tree in others.items():
        save_file(tree, weights)
        reseal(folder)
        wrong = "params/encoder/extra" if name == "unexpected" else stem
        with pytest.raises(UserError, match=f"does not fit config.json: {wrong}$"):
            export.load_exported(folder)
    weights.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        export.load_exported(folder)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("config.normalize", "record"),
        ("config.seconds", 5.0),
        ("config.model.depth", 34),
        ("input.normalize", "record"),
        ("input.rate_hz", 500),
        ("input.leads", []),
        ("model.width", 16),
        ("method", "mets"),
    ],
)
@pytest.mark.parametrize("again", [False, True])
def test_a_config_that_was_changed_is_refused(run, tmp_path, name, value, again):
    """By its digest, and where somebody has made that anew, because it contradicts itself."""
    export.export(run[0], tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    said = json.loads(path.read_text())
    *groups, field = name.split(".")
    place = said
    for group in groups:
        place = place[group]
    place[field] = value
    path.write_text(json.dumps(exported.sealed(said) if again else said))
    with pytest.raises(UserError, match="contradicts itself" if again else "its sha256 differs"):
        export.load_exported(tmp_path / "model")


def test_a_config_of_another_form_is_one_line(run, tmp_path):
    export.export(run[0], tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    whole = json.loads(path.read_text())

    def changed(**fields):
        said = {**whole, **fields}
        return json.dumps(exported.sealed(said)), json.dumps({**said, "format": 1})

    config = whole["config"]
    others = [
        *("[]", "3", "{}", "", "\ufeff{}", "[" * 100_000, json.dumps({**whole, "format": "2"})),
        *changed(config="x"),
        *changed(config={**config, "model": {**config["model"], "depth": "18"}}),
        *changed(config={k: v for k, v in config.items() if k != "model"}),
        *changed(config={k: v for k, v in config.items() if k != "evaluate"}),
        *changed(text_tower={"width": "8"}),
        *changed(text_tower=None),
        *changed(input=None),
        *changed(weights_sha256=3),
    ]
    for text in others:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError) as error:
            export.load_exported(tmp_path / "model")
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="holds no exported model"):
        export.load_exported(path)


def test_input_that_is_not_the_encoders_is_refused(run, tmp_path):
    export.export(run[0], tmp_path / "model")
    model = export.load_exported(tmp_path / "model")
    ecg, mask = np.zeros((2, 1000, 12), np.int16), np.ones((2, 12), bool)
    for other in (ecg.astype(np.float32), ecg[:, :500], ecg[..., :8], ecg[0]):
        with pytest.raises(UserError, match=r"encode takes int16 microvolts \[B, 1000, 12\], not"):
            model.encode(other, mask)
    for other in (mask[:1], mask.astype(np.int8)):
        with pytest.raises(UserError, match="encode takes a lead mask"):
            model.encode(ecg, other)


def test_where_it_is_written(run, tmp_path, monkeypatch):
    """Into a folder that is there, also the current one or a link, as the umask says."""
    before = os.umask(0o027)
    try:
        here, link = tmp_path / "here", tmp_path / "link"
        here.mkdir()
        monkeypatch.chdir(here)
        export.export(run[0], Path())
        (tmp_path / "there").mkdir()
        link.symlink_to(tmp_path / "there")
        export.export(run[0], link)
        export.export(run[0], tmp_path / "new")
    finally:
        os.umask(before)
    names = {"model.safetensors", "config.json", "README.md", "FIGURES.md"}
    for folder in (here, tmp_path / "there", tmp_path / "new"):
        assert {path.name for path in folder.iterdir()} == names
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}
        export.load_exported(folder)


def test_the_hub(run, tmp_path, monkeypatch, capsys):
    """What is pushed is what `hf:` finds; what the hub refuses is a line."""
    there = tmp_path / "hub"

    class Api:
        def create_repo(self, name, exist_ok):
            assert exist_ok
            if name == "other/model":
                raise RuntimeError("403 Forbidden\nand a page of it")

        def upload_folder(self, repo_id, folder_path):
            shutil.copytree(folder_path, there / repo_id)

    def download(name, revision, allow_patterns):
        assert revision is None and "model.safetensors" in allow_patterns
        return str(there / name)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    arguments = ["x", f"--workdir={run[0]}", f"--out={tmp_path / 'model'}"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--push=own/model"])
    export.main()
    assert "uploaded: hf:own/model" in capsys.readouterr().out
    assert ecg_jax.load("hf:own/model").exported.config["method"] == "etp"
    with pytest.raises(UserError, match=r"cannot upload .* to other/model \(403 Forbidden\)$"):
        hub.push(tmp_path / "model", "other/model")
