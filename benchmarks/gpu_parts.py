"""The parts of `gpu.py` that are no benchmark by themselves, each a process: `equality`, `epochs`
and `plan`. Writes its figures to --json.

    python -m benchmarks.gpu_parts equality --json equality.json
"""

import argparse
import importlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

METHODS = "etp,mets,simclr,byol,simsiam,moco,swav,cpc,tstcc,cmc,pirl,clocs,astcl"
FORMS = ("planar", "shifted", "folded", "winograd")
SAMPLES, WIDTH, RECORDS = 1000, 8, 16  # of the equality's programs
# Largest difference that rounding explains, of the largest value; ReLUs whose argument changes its
# sign make it larger in a gradient than in a loss.
LOSS, GRADIENT, FORM = 1e-4, 5e-2, 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("equality", "epochs", "plan"))
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--length", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--records", type=int, default=17_418)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--seconds", type=float, default=90, help="at most, of the epochs")
    parser.add_argument("--target", default="h100")
    parser.add_argument("--methods", default=METHODS)
    args = parser.parse_args()
    if args.part == "plan":
        os.environ["JAX_PLATFORMS"] = "cpu"
    result = {"equality": equality, "epochs": epochs, "plan": plan}[args.part](args)
    args.json.write_text(json.dumps(result))
    print(json.dumps(result))


def equality(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Every method's first loss and gradient, five steps of ETP and the forms of a convolution, on
    the first device against the CPU: `difference` of the largest value, and whether it is within
    `limit`. In float32, with all of its bits in products; small networks, as compiling takes most
    of the time."""
    import jax

    jax.config.update("jax_default_matmul_precision", "highest")
    jobs = [(_method, name) for name in args.methods.split(",") if name]
    jobs += [(_five_steps, "etp, five steps"), *((_form, form) for form in FORMS)]
    rows: list[dict[str, Any]] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # XLA compiles side by side
        for done in as_completed([pool.submit(_caught, job) for job in jobs]):
            rows += done.result()
            args.json.write_text(json.dumps(rows))  # what there is, should the time be over
    return rows


def _caught(job: tuple) -> list[dict[str, Any]]:
    """A method that fails is a row, and hides no other."""
    run, name = job
    try:
        return run(name)
    except Exception as error:  # whatever a compiler may raise
        return [{"what": name, "error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}]


def _row(what: str, got: Any, wanted: Any, limit: float) -> dict[str, Any]:
    import jax
    import numpy as np

    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True)
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in pairs]
    largest = max(float(np.abs(b).max()) for _, b in pairs)
    difference = max(float(np.abs(a - b).max()) for a, b in pairs) / max(largest, 1e-30)
    return {"what": what, "difference": difference, "limit": limit, "equal": difference <= limit}


def _config(name: str) -> Any:
    c = importlib.import_module(f"configs.{name}").get_config("rate=100")
    c.batch_size, c.shards, c.seconds = RECORDS, 8, SAMPLES / 100
    c.model.width, c.model.dtype, c.model.convolution = WIDTH, "float32", "plain"
    for field, value in (
        ("queue", 4 * RECORDS),
        ("negatives", RECORDS - 1),
        ("prototypes", RECORDS),
    ):
        if field in c.model:
            c.model[field] = min(c.model[field], value)
    return c


def _method(name: str) -> list[dict[str, Any]]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from ecg_jax import methods

    c = _config(name)
    method = methods.build(c)
    rng = np.random.default_rng(0)
    ecg = rng.standard_normal((RECORDS, SAMPLES, 12)).astype(np.float32)
    text = rng.standard_normal((RECORDS, 384 if method.encode_text else 0)).astype(np.float32)
    rows = np.arange(RECORDS, dtype=np.int32)
    view = methods.View(ecg, np.ones((RECORDS, 12), bool), text, rows, rows, rows // 2)
    outcomes = []
    cpu = jax.devices("cpu")[0]
    with jax.default_device(cpu):  # one start for both
        params, state = jax.jit(method.init)(jax.random.key(0), jax.tree.map(lambda x: x[:1], view))
        if method.memory is not None:
            state = {**state, "memory": method.memory(params, state, methods.Plan(64, 1000))}
        key = jax.random.key(1)
    loss = jax.value_and_grad(method.loss, has_aux=True)
    for device in (jax.devices()[0], cpu):
        put = jax.device_put((params, state, view, key), device)
        (value, _), gradient = jax.jit(loss)(*put)
        outcomes.append(jax.device_get((jnp.asarray(value), gradient)))
    (value, gradient), (wanted, reference) = outcomes
    return [
        _row(f"{name}, loss", value, wanted, LOSS),
        _row(f"{name}, gradient", gradient, reference, GRADIENT),
    ]


def _five_steps(what: str) -> list[dict[str, Any]]:
    import jax
    import numpy as np

    from ecg_jax import methods
    from ecg_jax.data import resident
    from ecg_jax.run.experiment import blank
    from ecg_jax.runtime import parallel
    from ecg_jax.training import feed, optim
    from ecg_jax.training.state import TrainState
    from ecg_jax.training.step import make_dispatch

    c = _config("etp")
    rng, N = np.random.default_rng(0), 5 * RECORDS
    ecg = rng.normal(0, 300, (N, SAMPLES, 12)).astype(np.int16)
    text, rows = rng.standard_normal((N, 384)).astype(np.float32), np.arange(N, dtype=np.int32)
    method, optimizer = methods.build(c), optim.build(c, 5)
    with jax.default_device(jax.devices("cpu")[0]):
        start = jax.jit(method.init)(jax.random.key(0), blank(SAMPLES, 384))
    losses = []
    for device in (jax.devices()[0], jax.devices("cpu")[0]):
        mesh = parallel.make_mesh([device])
        split = resident.put(mesh, ecg, np.ones((N, 12), bool), rows, shards=8, seed=0)
        tables = jax.device_put(feed.Tables(text, rows, rows), parallel.replicated(mesh))

        def begin(params: Any, state: Any) -> TrainState:
            average = jax.tree.map(jax.numpy.copy, (params, state)) if c.average else None
            return TrainState(jax.numpy.int32(0), params, state, optimizer.init(params), average)

        placed = jax.device_put(start, parallel.replicated(mesh))
        state = jax.jit(begin, out_shardings=parallel.replicated(mesh))(*placed)
        dispatch = make_dispatch(c, method, optimizer, 5)
        each = []
        for _ in range(5):  # one compiled step: a CPU's program would have all five in it
            state, metrics = dispatch(state, feed.Data(split, tables), 1)
            each.append(float(metrics["loss"][0]))
        losses.append(np.array(each))
    return [_row(f"{what}: losses {np.round(losses[0], 4).tolist()}", *losses, 1e-2)]


def _form(form: str) -> list[dict[str, Any]]:
    import jax
    import jax.numpy as jnp

    from benchmarks.convolutions import LAYERS, passes
    from ecg_jax.models.conv1d import Conv

    rows = []
    for name, reduced, C, D, K, stride in LAYERS:
        if (form == "winograd" and (K, stride) != (3, 1)) or (form == "folded" and stride != 2):
            continue
        T = SAMPLES // reduced
        x = jax.random.normal(jax.random.key(0), (4, T, C))
        w = jax.random.normal(jax.random.key(1), (K, C, D)) / (K * C) ** 0.5
        dy = jax.random.normal(jax.random.key(2), (4, -(-T // stride), D))
        got, wanted = (
            jax.jit(passes(Conv(D, K, stride, jnp.dtype("float32"), f)))(x, w, dy)
            for f in (form, "plain")
        )
        what = f"{form} against plain, {name}"
        outputs = [(got[0], wanted[0]), *zip(got[1], wanted[1], strict=True)]  # y, dx, dw
        each = [_row(what, a, b, FORM) for a, b in outputs]
        rows.append(max(each, key=lambda row: row["difference"]))
    return rows


def epochs(args: argparse.Namespace) -> dict[str, Any]:
    """Epochs over resident records in wall-clock seconds, with compilation apart, and the peak of
    the device's memory beside what the compiled program asks for."""
    import jax

    from benchmarks import step_jax
    from ecg_jax.planning import program

    job = {"length": args.length, "batch": args.batch, "dtype": args.dtype}
    job |= {"device": args.device, "records": args.records, "measure": False}
    start = time.perf_counter()
    run = step_jax.Run(job)
    ready = time.perf_counter() - start
    first = run.steps(1)  # a whole dispatch
    wanted, done, seconds, losses = args.epochs * run.epoch, 0, 0.0, first["losses"]
    while done < wanted and seconds < args.seconds:
        took = run.steps(min(10 * run.length, wanted - done))
        done, seconds, losses = done + took["steps"], seconds + took["seconds"], took["losses"]
    analysis = run.compiled.memory_analysis()
    held = program.device_bytes((run.state, run.data))
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    stats = jax.devices()[0].memory_stats() or {}
    return {
        "device": jax.devices()[0].device_kind,
        "records": args.records,
        "batch": args.batch,
        "epochs": done / run.epoch,
        "seconds": seconds,
        "seconds_of_50_epochs": 50 * run.epoch * seconds / done,
        "records_per_second": done * args.batch / seconds,
        "start_seconds": ready,
        "compile_seconds": run.compile_seconds,
        "last_loss": losses[-1],
        "peak_bytes": stats.get("peak_bytes_in_use"),
        "compiled_bytes": held + analysis.temp_size_in_bytes + outputs,
    }


def plan(args: argparse.Namespace) -> dict[str, Any]:
    """What `ecg_jax.plan` says of the job of `epochs`."""
    from benchmarks import step_jax
    from ecg_jax.planning import targets
    from ecg_jax.planning.estimate import estimate

    job = {"length": args.length, "batch": args.batch, "dtype": args.dtype}
    config = step_jax.config(job)
    config.text.tower = "minilm"  # its width is that of the benchmark's embeddings
    return estimate(config, targets.parse(args.target), args.records).facts()


if __name__ == "__main__":
    main()
