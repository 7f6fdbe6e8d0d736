"""Weights files: every format and prefix gives the same tree, anything unfit is refused."""

import io
import pickle
import struct
import sys
import zipfile

import jax
import numpy as np
import pytest
from flax import serialization, traverse_util
from safetensors.numpy import save_file

from ecg_jax.errors import UserError
from ecg_jax.models.bert import BertConfig
from ecg_jax.text import weights

CONFIG = BertConfig(
    vocab_size=12,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=20,
    max_position_embeddings=6,
)


@pytest.fixture
def leaves():
    rng = np.random.default_rng(3)
    shapes = weights.parameter_shapes(CONFIG)
    return {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}


def torch_layout(leaves, prefix="", scale="weight", bias="bias"):
    """The published PyTorch names and orientation."""
    out = {}
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        if last == "kernel":
            last, leaf = "weight", np.ascontiguousarray(leaf.T)
        elif last == "embedding":
            last = "weight"
        elif parents[-1] == "LayerNorm":
            last = scale if last == "scale" else bias
        out[prefix + ".".join([*parents, last])] = leaf
    return out


def write_msgpack(folder, leaves, wrap=lambda tree: tree):
    path = folder / "flax_model.msgpack"
    tree = traverse_util.unflatten_dict(leaves, sep="/")
    path.write_bytes(serialization.msgpack_serialize(wrap(tree)))
    return path


def write_safetensors(folder, tensors):
    save_file(tensors, folder / "model.safetensors")
    return folder / "model.safetensors"


def check(path, leaves):
    loaded = traverse_util.flatten_dict(weights.load_parameters(path, CONFIG), sep="/")
    assert loaded.keys() == leaves.keys()
    for name, leaf in leaves.items():
        np.testing.assert_array_equal(loaded[name], leaf)
        assert loaded[name].dtype == np.float32


@pytest.mark.parametrize(
    "wrap",
    [
        lambda tree: tree,
        lambda tree: {"params": tree},
        lambda tree: {"bert": tree, "cls": {"predictions": {"bias": np.ones(3)}}},
        lambda tree: {"params": {"bert": tree}},
    ],
)
def test_msgpack(tmp_path, leaves, wrap):
    check(write_msgpack(tmp_path, leaves, wrap), leaves)


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("names", [("weight", "bias"), ("gamma", "beta")])
def test_safetensors(tmp_path, leaves, prefix, names):
    tensors = torch_layout(leaves, prefix, *names)
    tensors["cls.seq_relationship.bias"] = np.ones(2, np.float32)
    tensors[f"{prefix}embeddings.position_ids"] = np.arange(6)[None]
    check(write_safetensors(tmp_path, tensors), leaves)


def test_half_precision_becomes_float32(tmp_path, leaves):
    leaves = {n: leaf.astype(np.float16).astype(np.float32) for n, leaf in leaves.items()}
    tensors = {n: t.astype(np.float16) for n, t in torch_layout(leaves).items()}
    check(write_safetensors(tmp_path, tensors), leaves)


def test_order_of_preference(tmp_path):
    with pytest.raises(UserError, match=r"flax_model\.msgpack, model\.safetensors, pytorch_model"):
        weights.find_weights(tmp_path)
    for name in reversed(weights.FILES):
        (tmp_path / name).touch()
        assert weights.find_weights(tmp_path).name == name


def test_everything_that_does_not_fit_is_listed(tmp_path, leaves):
    del leaves["pooler/dense/bias"], leaves["encoder/layer/1/output/dense/kernel"]
    leaves["encoder/layer/2/output/dense/bias"] = np.zeros(8, np.float32)
    leaves["embeddings/LayerNorm/bias"] = np.zeros(9, np.float32)
    with pytest.raises(UserError) as caught:
        weights.load_parameters(write_msgpack(tmp_path, leaves), CONFIG)
    message = str(caught.value)
    assert "missing: encoder/layer/1/output/dense/kernel, pooler/dense/bias;" in message
    assert "unexpected: encoder/layer/2/output/dense/bias;" in message
    assert "wrong shape: embeddings/LayerNorm/bias (9,) instead of (8,)" in message
    assert "\n" not in message


def test_untransposed_kernel_is_refused(tmp_path, leaves):
    tensors = torch_layout(leaves)
    name = "encoder.layer.0.output.dense.weight"
    tensors[name] = np.ascontiguousarray(tensors[name].T)
    with pytest.raises(UserError, match="wrong shape: encoder/layer/0/output/dense/kernel"):
        weights.load_parameters(write_safetensors(tmp_path, tensors), CONFIG)


def test_name_given_twice_is_refused(tmp_path, leaves):
    tensors = torch_layout(leaves) | torch_layout(leaves, "bert.")
    with pytest.raises(UserError, match="two arrays are named"):
        weights.load_parameters(write_safetensors(tmp_path, tensors), CONFIG)


def test_not_finite_is_refused(tmp_path, leaves):
    leaves["pooler/dense/bias"][3] = np.nan
    with pytest.raises(UserError, match="not finite: pooler/dense/bias"):
        weights.load_parameters(write_msgpack(tmp_path, leaves), CONFIG)


def test_text_for_an_array_is_refused(tmp_path, leaves):
    path = write_msgpack(tmp_path, leaves | {"pooler/dense/bias": "zeros"})
    with pytest.raises(UserError, match="pooler/dense/bias is not an array"):
        weights.load_parameters(path, CONFIG)


@pytest.mark.parametrize("name", weights.FILES)
@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04rest", b"\xde\x00\x05abc"])
def test_damaged_file_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        weights.load_parameters(tmp_path / name, CONFIG)


@pytest.mark.parametrize("name", ["flax_model.msgpack", "model.safetensors"])
def test_truncated_file_is_refused(tmp_path, leaves, name):
    if name.endswith("msgpack"):
        path = write_msgpack(tmp_path, leaves)
    else:
        path = write_safetensors(tmp_path, torch_layout(leaves))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="damaged"):
        weights.load_parameters(path, CONFIG)


class Malicious:
    """Unpickling it would write a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return open, (str(self.target), "w")


def torch_zip(path, data: bytes):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3")
    return path


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_pickle_that_asks_for_code_is_refused(tmp_path, protocol):
    target = tmp_path / "written"
    data = pickle.dumps({"bert.x": Malicious(target)}, protocol)
    path = torch_zip(tmp_path / "pytorch_model.bin", data)
    asked = r"refused, its pickle asks for '(io|__builtin__|builtins|_io)\.open'"
    with pytest.raises(UserError, match=asked):
        weights.load_parameters(path, CONFIG)
    assert not target.exists()


@pytest.mark.parametrize("name", weights.FILES)
def test_pickle_in_disguise_is_refused(tmp_path, name):
    target = tmp_path / "written"
    (tmp_path / name).write_bytes(pickle.dumps(Malicious(target), 2))
    with pytest.raises(UserError):
        weights.load_parameters(tmp_path / name, CONFIG)
    assert not target.exists()


def test_code_after_the_first_of_the_old_format_s_pickles_is_refused(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    harmless = pickle.dumps(1001, 2)
    path.write_bytes(3 * harmless + pickle.dumps(Malicious(tmp_path / "x"), 2) + harmless)
    with pytest.raises(UserError, match="asks for"):
        weights.load_parameters(path, CONFIG)


def test_name_on_the_stack_is_refused_even_if_it_looks_safe(tmp_path):
    """STACK_GLOBAL's strings can be shuffled, so what a scan reads need not be what is run."""
    data = pickle.PROTO + b"\x04" + b"\x8c\x0bcollections\x8c\x0bOrderedDict\x93."
    with pytest.raises(UserError, match=r"collections\.OrderedDict"):
        weights.scan_pickle(torch_zip(tmp_path / "pytorch_model.bin", data))


def test_extension_code_is_refused(tmp_path):
    data = pickle.PROTO + b"\x02" + pickle.EXT1 + struct.pack("B", 7) + b"."
    with pytest.raises(UserError, match=r"extension\.7"):
        weights.scan_pickle(torch_zip(tmp_path / "pytorch_model.bin", data))


def tensor_pickle(leaves) -> bytes:
    """The pickle that torch.save writes for float tensors, protocol 2, without torch."""
    out = io.BytesIO()
    out.write(b"\x80\x02ccollections\nOrderedDict\n)R(")
    for number, (name, leaf) in enumerate(torch_layout(leaves).items()):
        out.write(b"X" + struct.pack("<I", len(name)) + name.encode())
        out.write(b"ctorch._utils\n_rebuild_tensor_v2\n(")
        storage = ["storage", str(number), "cpu"]
        words = [b"X" + struct.pack("<I", len(word)) + word.encode() for word in storage]
        out.write(b"(" + words[0] + b"ctorch\nFloatStorage\n" + words[1] + words[2])
        out.write(b"J" + struct.pack("<i", leaf.size) + b"tQ")
        out.write(b"K\x00))\x89ccollections\nOrderedDict\n)RtR")
    out.write(b"u.")
    return out.getvalue()


def test_plain_tensors_pass_the_scan_and_need_torch(tmp_path, leaves, monkeypatch):
    path = torch_zip(tmp_path / "pytorch_model.bin", tensor_pickle(leaves))
    weights.scan_pickle(path)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"ecg-jax\[torch\].*model\.safetensors"):
        weights.load_parameters(path, CONFIG)


def test_torch_tensors_are_renamed_and_transposed(tmp_path, leaves, monkeypatch):
    """With a stand-in for torch, whose `load` must be asked for weights only."""

    class Tensor:
        def __init__(self, array):
            self.array = array

        def detach(self):
            return self

        def float(self):
            return self

        def numpy(self):
            return self.array

    class Torch:
        @staticmethod
        def load(path, map_location, weights_only):
            assert weights_only and map_location == "cpu"
            return {n: Tensor(t) for n, t in torch_layout(leaves, "bert.").items()}

    monkeypatch.setitem(sys.modules, "torch", Torch)
    check(torch_zip(tmp_path / "pytorch_model.bin", tensor_pickle(leaves)), leaves)


def test_shapes_are_those_of_the_module():
    shapes = weights.parameter_shapes(CONFIG)
    assert len(shapes) == 5 + 16 * CONFIG.num_hidden_layers + 2
    assert shapes["encoder/layer/1/intermediate/dense/kernel"] == (8, 20)
    assert jax.tree.all(jax.tree.map(lambda n: n > 0, list(shapes.values())))
