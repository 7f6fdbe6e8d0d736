"""An encoder for other frameworks: an ONNX file, or a PyTorch module with its weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from ecg_jax.errors import UserError
from ecg_jax.inference.exported import Parts, assembled
from ecg_jax.inference.plain import Block, Layer, Plain, plain, run
from ecg_jax.inference.scores import NOT_A_DEVICE
from ecg_jax.runtime.files import write_whole

KINDS = ("onnx", "torch")
OPSET = 17
CLOSE = 1e-3  # of the features' largest, what folding may change
_TEMPLATE = Path(__file__).with_name("torch_encoder.txt")


def checked(parts: Parts) -> Plain:
    """The encoder as plain convolutions, once it gives the model's own features and embeddings.

    Raises:
      UserError: as `plain`, or it does not.
    """
    network = plain(parts)
    rng = np.random.default_rng(0)
    ecg = rng.normal(0, 300, (2, network.samples, network.stem.kernel.shape[1])).cumsum(axis=1)
    ecg = np.clip(ecg / 20, -9000, 9000).astype(np.int16)
    ours = assembled(parts).encode(ecg, np.ones((2, ecg.shape[2]), bool))
    for theirs, own in zip(run(network, ecg), (ours.features, ours.embedding), strict=True):
        own = np.asarray(own, np.float32)
        if theirs is None:
            continue
        if theirs.shape != own.shape or np.abs(theirs - own).max() > CLOSE * np.abs(own).max():
            raise UserError(
                f"{parts.description['method']}: its encoder is more than one ResNet on all leads"
            )
    return network


def write_onnx(network: Plain, description: dict[str, Any], path: Path) -> None:
    """`ecg`, float [N, T, 12] microvolts -> `features` [N, D] and, of a method with a text side,
    `embedding` [N, E]; any N, and any T from a second on.

    Raises:
      UserError: the package onnx is missing.
    """
    try:
        import onnx
    except ModuleNotFoundError:
        raise UserError("--to onnx needs the package onnx: pip install onnx") from None
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights = [], []

    def constant(name: str, x: np.ndarray) -> str:
        weights.append(numpy_helper.from_array(np.ascontiguousarray(x), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def convolve(layer: Layer, x: str, name: str) -> str:
        side = layer.kernel.shape[2] // 2
        names = [constant(f"{name}.weight", layer.kernel), constant(f"{name}.bias", layer.bias)]
        return node("Conv", [x, *names], name, strides=[layer.stride], pads=[side, side])

    def block(b: Block, x: str, name: str) -> str:
        y = x
        for j, layer in enumerate(b.layers):
            y = convolve(layer, y, f"{name}.conv{j + 1}")
            if j + 1 < len(b.layers):
                y = node("Relu", [y], f"{y}.relu")
        shortcut = convolve(b.shortcut, x, f"{name}.shortcut") if b.shortcut else x
        return node("Relu", [node("Add", [y, shortcut], f"{name}.sum")], name)

    x = node("Mul", ["ecg", constant("millivolts", np.array(1e-3, np.float32))], "in_millivolts")
    x = node("Transpose", [x], "leads_first", perm=[0, 2, 1])
    x = node("Relu", [convolve(network.stem, x, "stem")], "stem.relu")
    x = node("MaxPool", [x], "stem.pool", kernel_shape=[3], strides=[2], pads=[1, 1])
    for i, b in enumerate(network.blocks):
        x = block(b, x, f"block{i + 1}")
    node("ReduceMean", [x], "features", axes=[2], keepdims=0)
    width = network.blocks[-1].layers[-1].kernel.shape[0]
    outputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", width])]
    if network.head is not None:
        kernel, bias = network.head
        z = node("Gemm", ["features", constant("kernel", kernel), constant("bias", bias)], "joint")
        node("LpNormalization", [z], "embedding", axis=1, p=2)
        size = ["N", kernel.shape[1]]
        outputs.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, size))
    leads = network.stem.kernel.shape[1]
    ecg = helper.make_tensor_value_info("ecg", TensorProto.FLOAT, ["N", "T", leads])
    graph = helper.make_graph(nodes, "ecg_encoder", [ecg], outputs, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    made.ir_version, made.producer_name = 8, "ecg_jax"
    helper.set_model_props(made, {k: json.dumps(v) for k, v in about(description).items()})
    onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString())


def write_torch(network: Plain, description: dict[str, Any], folder: Path) -> None:
    """`ecg_encoder.py`, a module that needs PyTorch and safetensors alone, and its weights."""
    arrays: dict[str, np.ndarray] = {}

    def put(name: str, layer: Layer) -> tuple[int, ...]:
        arrays[f"{name}.weight"], arrays[f"{name}.bias"] = layer.kernel, layer.bias
        out, inside, width = layer.kernel.shape
        return inside, out, width, layer.stride

    stem, blocks = put("stem", network.stem), []
    for i, b in enumerate(network.blocks):
        layers = [put(f"blocks.{i}.layers.{j}", layer) for j, layer in enumerate(b.layers)]
        shortcut = put(f"blocks.{i}.shortcut", b.shortcut) if b.shortcut else None
        blocks.append((layers, shortcut))
    head = None
    if network.head is not None:
        arrays["head.weight"] = np.ascontiguousarray(network.head[0].T)
        arrays["head.bias"] = network.head[1]
        head = network.head[0].shape
    rows = "\n".join(f"    {b!r}," for b in blocks)
    text = _TEMPLATE.read_text(encoding="utf-8")
    told = json.dumps(about(description), indent=4)
    for name, value in (
        ("ABOUT", told),
        ("STEM", repr(stem)),
        ("BLOCKS", f"[\n{rows}\n]"),
        ("HEAD", repr(head)),
        ("LIMITS", NOT_A_DEVICE),
    ):
        text = text.replace(f"@{name}@", value)
    (folder / "ecg_encoder.py").write_text(text, encoding="utf-8")
    write_whole(folder / "ecg_encoder.safetensors", save(arrays, metadata={"format": "pt"}))


def about(description: dict[str, Any]) -> dict[str, Any]:
    """What whoever uses the file must know."""
    given, run = description["input"], description["provenance"]
    return {
        "method": description["method"],
        "dataset": run["dataset"],
        "step": run["step"],
        "leads": given["leads"],
        "rate_hz": given["rate_hz"],
        "seconds": given["seconds"],
        "units": given["units"],
        "missing_leads": "zeros",
        "limits": NOT_A_DEVICE,
    }
