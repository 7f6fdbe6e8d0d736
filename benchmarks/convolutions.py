"""The forms of a convolution, layer by layer of ResNet18-1D, forward and backward.

    python -m benchmarks.convolutions --length 1000 --batch 32
    python -m benchmarks.convolutions --length 5000 --batch 128 --dtype bfloat16

Milliseconds for value and both gradients; each form is compiled alone, so what XLA fuses around it
in the network is not in the figure. `--config.model.convolution` chooses a form for training.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks import report
from ecg_jax.models.conv1d import FORMS, Conv

# name, samples per sample of the layer's input, channels in and out, taps, stride
LAYERS = (
    ("stem", 1, 12, 64, 7, 2),
    ("stage 1", 4, 64, 64, 3, 1),
    ("to stage 2", 4, 64, 128, 3, 2),
    ("stage 2", 8, 128, 128, 3, 1),
    ("stage 3", 16, 256, 256, 3, 1),
    ("stage 4", 32, 512, 512, 3, 1),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--length", type=int, default=1000, help="samples")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="a file for the rows")
    args = parser.parse_args()
    rows = [{"layer": layer[0], **measure(args, layer)} for layer in LAYERS]
    file = vars(args).pop("json")
    report.show(rows, device=jax.devices()[0].device_kind, **vars(args))
    if file:
        file.write_text(json.dumps(rows))


def measure(args: argparse.Namespace, layer: tuple) -> dict[str, float]:
    """Median milliseconds of every form that the layer has, in alternating rounds."""
    _, reduced, C, D, K, stride = layer
    T = -(-args.length // reduced)
    x = jax.random.normal(jax.random.key(0), (args.batch, T, C), args.dtype)
    w = jax.random.normal(jax.random.key(1), (K, C, D))
    dy = jax.random.normal(jax.random.key(2), (args.batch, -(-T // stride), D), args.dtype)
    programs, times = {}, {}
    for form in FORMS[1:]:
        if form == "winograd" and ((K, stride) != (3, 1) or args.dtype != "float32"):
            continue
        programs[form] = jax.jit(passes(Conv(D, K, stride, jnp.dtype(args.dtype), form)))
        jax.block_until_ready(programs[form](x, w, dy))
        times[form] = []
    for _ in range(args.rounds):
        for form, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(x, w, dy))
            times[form].append(1000 * (time.perf_counter() - start))
    return {form: statistics.median(t) for form, t in times.items()}


def passes(conv: Conv):
    def run(x: jax.Array, w: jax.Array, dy: jax.Array):
        y, vjp = jax.vjp(lambda x, w: conv.apply({"params": {"kernel": w}}, x), x, w)
        return y, vjp(dy)

    return run


if __name__ == "__main__":
    main()
