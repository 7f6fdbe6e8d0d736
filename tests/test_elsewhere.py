"""Encoders for other frameworks give what they give here."""

import importlib.util
import json
import sys

import agreement
import jax
import numpy as np
import pytest

from configs import simclr
from ecg_jax import export
from ecg_jax.errors import UserError
from ecg_jax.inference import elsewhere
from ecg_jax.inference.exported import Parts, assembled, described
from ecg_jax.methods import build, lasting
from ecg_jax.models.resnet1d import STAGES
from ecg_jax.run.experiment import NO_TOWER, blank
from ecg_jax.run.exported import flatten

TOWER = NO_TOWER | {"name": "minilm", "width": 384}


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    for depth in (18, 50):
        monkeypatch.setitem(STAGES, depth, (1, 1))


def parts(config, tower=NO_TOWER) -> Parts:
    """A model of random weights and statistics."""
    config.seconds = 2.5
    config.model.width = 4
    params, state = build(config).init(jax.random.key(0), blank(250, tower["width"]))
    tree = flatten(jax.device_get({"params": params, "method": lasting(state)}))
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.uniform(0.5, 1.5, x.shape).astype(np.float32) if name.endswith("var") else x
        for name, x in tree.items()
    }
    return Parts(described(config, {"text_tower": tower}, 1), arrays, None, None)


def of_etp(tmp_path, depth=18) -> Parts:
    config = agreement.small(tmp_path)
    config.model.depth = depth
    return parts(config, TOWER)


def ecg() -> np.ndarray:
    walk = np.random.default_rng(1).normal(0, 15, (3, 250, 12)).cumsum(axis=1)
    return walk.astype(np.int16)


@pytest.mark.parametrize("depth", [18, 50])
def test_onnx(depth, tmp_path):
    import onnxruntime

    model = of_etp(tmp_path, depth)
    path = tmp_path / "ecg_encoder.onnx"
    elsewhere.write_onnx(elsewhere.checked(model), model.description, path)
    session = onnxruntime.InferenceSession(path)
    features, embedding = session.run(None, {"ecg": ecg().astype(np.float32)})
    ours = assembled(model).encode(ecg(), np.ones((3, 12), bool))
    np.testing.assert_allclose(features, ours.features, atol=1e-4)
    np.testing.assert_allclose(embedding, ours.embedding, atol=1e-4)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["rate_hz"]) == 100 and "not a medical device" in about["limits"]


def test_torch(tmp_path):
    """The module is Python that names no part of this project; its output, where PyTorch is."""
    model = parts(simclr.get_config("rate=100"))
    elsewhere.write_torch(elsewhere.checked(model), model.description, tmp_path)
    source = (tmp_path / "ecg_encoder.py").read_text()
    compile(source, "ecg_encoder.py", "exec")
    assert "@" not in source and "import ecg_jax" not in source and "HEAD = None" in source
    torch = pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("ecg_encoder", tmp_path / "ecg_encoder.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    encoder = module.load(tmp_path / "ecg_encoder.safetensors")
    with torch.no_grad():
        features, embedding = encoder(torch.from_numpy(ecg()))
    ours = assembled(model).encode(ecg(), np.ones((3, 12), bool))
    np.testing.assert_allclose(features.numpy(), ours.features, atol=1e-4)
    assert embedding is None


def test_what_is_no_single_network_is_refused(tmp_path, monkeypatch):
    config = agreement.small(tmp_path)
    config.normalize = "record"
    with pytest.raises(UserError, match="only millivolt is written elsewhere"):
        elsewhere.checked(parts(config, TOWER))
    model = of_etp(tmp_path)
    wrong = dict(model.arrays)
    monkeypatch.setattr(elsewhere, "plain", lambda _: elsewhere_of(model, wrong))
    with pytest.raises(UserError, match="more than one ResNet on all leads"):
        elsewhere.checked(model)


def elsewhere_of(model: Parts, arrays: dict) -> object:
    """The plain network of other weights."""
    from ecg_jax.inference.plain import plain

    name = "params/encoder/conv_stem/kernel"
    return plain(model._replace(arrays=arrays | {name: 2 * arrays[name]}))


def test_the_program(tmp_path, monkeypatch, capsys):
    model = of_etp(tmp_path)
    monkeypatch.setattr(export, "of", lambda folder: model)
    for to, names in (
        ("onnx", {"ecg_encoder.onnx"}),
        ("torch", {"ecg_encoder.py", "ecg_encoder.safetensors"}),
    ):
        out = tmp_path / to
        monkeypatch.setattr(sys, "argv", ["x", "--workdir=run", f"--out={out}", f"--to={to}"])
        export.main()
        assert {p.name for p in out.iterdir()} == names
        with pytest.raises(UserError, match="is not an empty folder"):
            export.main()
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr(sys, "argv", ["x", "--workdir=r", f"--out={tmp_path}/n", "--to=onnx"])
    with pytest.raises(UserError, match="needs the package onnx"):
        export.main()
    assert not (tmp_path / "n").exists()
