"""ECG-FM's tensors to a folder that is read, judged and equals the oracle."""

import json
import zipfile

import jax
import numpy as np
import pytest
import wav2vec2_oracle as oracle
from safetensors.numpy import load_file, save_file

from ecg_jax import evaluate
from ecg_jax.errors import UserError
from ecg_jax.export import load_exported
from ecg_jax.models import ecg_fm, wav2vec2
from ecg_jax.run import config as config_lib
from ecg_jax.run import exported
from ecg_jax.run.experiment import open_experiment
from ecg_jax.runtime import parallel
from ecg_jax.tools import import_weights

TINY, TOKEN = wav2vec2.Size(1, 32, 2, 32), 16


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(wav2vec2, "SIZES", {"base": TINY})
    monkeypatch.setattr(wav2vec2, "TOKEN", TOKEN)


def tensors(classifier=False):
    rng, made = np.random.default_rng(0), {}
    rows = ecg_fm.encoder(TINY, TOKEN, 4)
    if not classifier:
        rows |= ecg_fm.pretraining(TINY, TOKEN)
    for name, (_, shape, _) in rows.items():
        around = 1.0 if name.endswith(("norm.weight", "0.2.weight")) else 0.0
        array = (around + 0.3 * rng.standard_normal(shape)).astype(np.float32)
        made[f"encoder.{name}" if classifier else name] = array
    if classifier:
        made |= {"proj.weight": np.ones((5, 32), np.float32), "proj.bias": np.zeros(5, np.float32)}
    return made


def saved(folder, made, name="ecg_fm.safetensors"):
    save_file(made, folder / name)
    return folder / name


def test_what_is_imported_is_the_published_network(tmp_path):
    made = tensors()
    import_weights.import_ecg_fm(saved(tmp_path, made), tmp_path / "out")
    model = load_exported(tmp_path / "out")
    ecg = np.random.default_rng(1).integers(-900, 900, (1, 5000, 12)).astype(np.int16)
    ecg[:, :, 4] = 70  # a lead that is constant
    encoded = model.encode(jax.numpy.asarray(ecg), np.ones((1, 12), bool))
    x = ecg[0].astype(np.float64)
    z = (x - x.mean(0)) / np.maximum(x.std(0), 1e-9)
    z[:, 4] = 0
    halves = [oracle.encode(made, part, 1, 2) for part in (z[:2500], z[2500:])]
    assert encoded.map.shape == (1, 312, 32)
    np.testing.assert_allclose(encoded.map[0], np.concatenate(halves), atol=1e-3)
    wanted = np.mean([half.mean(axis=0) for half in halves], axis=0)
    np.testing.assert_allclose(encoded.features[0], wanted, atol=1e-4)
    said = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "PTB-XL" in said["imported"] and said["input"]["normalize"] == "lead"
    assert "MIT" in (tmp_path / "out" / "README.md").read_text()


def test_a_classifier_keeps_its_layer(tmp_path):
    import_weights.import_ecg_fm(saved(tmp_path, tensors(classifier=True)), tmp_path / "out")
    head = load_file(tmp_path / "out" / "head.safetensors")
    assert head["kernel"].shape == (32, 5) and head["bias"].shape == (5,)
    features = load_exported(tmp_path / "out").variables["params"]
    assert set(features) == {"encoder"}


def test_evaluate_judges_it(tmp_path, simulated, capsys, monkeypatch):
    import_weights.import_ecg_fm(saved(tmp_path, tensors()), tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    said = json.loads(path.read_text())
    # The simulated records of these tests have another rate; the strides stay.
    said["config"] |= {"dataset": "simulated", "rate": 100, "seconds": 10.0}
    said["config"]["evaluate"] |= {"tasks": ["super"], "protocols": ["linear_probe", "identify"]}
    said["config"]["evaluate"] |= {"draws": 20}
    said["config"]["evaluate"] |= {"controls": [], "rules": ["corrected"]}
    path.write_text(json.dumps(exported.sealed(said)))
    config = config_lib.from_json(said["config"])
    config.data_dir = str(simulated)
    monkeypatch.setattr(parallel, "make_mesh", one_device(parallel.make_mesh))
    rows = evaluate.evaluate(open_experiment(config), tmp_path / "out")
    assert {row["encoder"] for row in rows} == {"trained"} and rows[0]["step"] == 0
    assert "it has seen" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").exists()


def one_device(make_mesh):
    return lambda devices=None: make_mesh((devices or jax.devices())[:1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("mask_emb"), "it lacks mask_emb"),
        (lambda t: t.update(more=np.zeros(1, np.float32)), "it has more"),
        (lambda t: t.update(mask_emb=np.zeros(3, np.float32)), r"mask_emb has the shape \(3,\)"),
        (lambda t: t.clear() or t.update(a=np.zeros(1, np.float32)), "0 layers of 0 units"),
    ],
)
def test_another_model_is_refused(tmp_path, change, message):
    made = tensors()
    change(made)
    with pytest.raises(UserError, match=message):
        import_weights.import_ecg_fm(saved(tmp_path, made), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_runs_and_nothing_is_overwritten(tmp_path):
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(UserError, match=r"its pickle asks for 'os\.system'"):
        import_weights.import_ecg_fm(tmp_path / "evil.pt", tmp_path / "out")
    with pytest.raises(UserError, match="no such file"):
        import_weights.import_ecg_fm(tmp_path / "none.pt", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(UserError, match="is not an empty folder"):
        import_weights.import_ecg_fm(saved(tmp_path, tensors()), tmp_path / "full")
