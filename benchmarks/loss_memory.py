"""Temporary memory of one device for the contrastive losses' value and gradients, form by form.

    python -m benchmarks.loss_memory [--batch 8192] [--dim 256] [--devices 8]

The program is compiled for simulated CPU devices and not run: the figures are the compiler's.
Prints a table, then one line of JSON.
"""

import argparse
import json

import jax
import jax.numpy as jnp

from ecg_jax.losses.contrastive import FORMS, sigmoid, symmetric_info_nce
from ecg_jax.runtime import parallel

LOSSES = {
    "info_nce": lambda e, t, group, form: symmetric_info_nce(e, t, 0.07, group, form),
    "sigmoid": lambda e, t, group, form: sigmoid(e, t, 0.1, -10.0, group, form),
}


def temporary_bytes(loss: str, form: str, *, batch: int, dim: int, devices: int) -> int:
    """Of one device, for the value and the gradients of both sides' embeddings."""
    mesh = parallel.make_mesh(jax.devices()[:devices])
    sharding = parallel.by_record(mesh)
    embedding = jax.ShapeDtypeStruct((batch, dim), jnp.float32, sharding=sharding)
    group = jax.ShapeDtypeStruct((batch,), jnp.int32, sharding=sharding)

    def value(e: jax.Array, t: jax.Array, group: jax.Array) -> jax.Array:
        return LOSSES[loss](e, t, group, form)

    with jax.set_mesh(mesh):
        run = jax.jit(jax.value_and_grad(value, (0, 1)))
        compiled = run.lower(embedding, embedding, group).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8192, help="global batch")
    parser.add_argument("--dim", type=int, default=256, help="of the embeddings")
    parser.add_argument("--devices", type=int, default=8)
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", args.devices)
    rows = []
    for loss in LOSSES:
        used = {form: temporary_bytes(loss, form, **vars(args)) for form in FORMS}
        rows += [
            {"loss": loss, "form": form, "bytes": n, "of_plain": n / used["plain"]}
            for form, n in used.items()
        ]
    print(f"global batch {args.batch:,}, {args.dim} dimensions, {args.devices} devices")
    print(f"{'loss':<10}{'form':<10}{'MiB a device':>14}{'of plain':>10}")
    for row in rows:
        mib = row["bytes"] / 2**20
        print(f"{row['loss']:<10}{row['form']:<10}{mib:>14.1f}{row['of_plain']:>9.0%}")
    print(json.dumps({**vars(args), "jax": jax.__version__, "rows": rows}))


if __name__ == "__main__":
    main()
