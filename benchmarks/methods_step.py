"""Each method's training step against the time that its encoder passes alone take.

    python -m benchmarks.methods_step
    python -m benchmarks.methods_step --methods byol,clocs:kind=cmlc --batch 128 --rounds 3

The step is `make_dispatch` of the method's config on resident records: drawing, augmenting,
heads, loss, memory and update. Its peer is a program that does nothing but put fixed arrays of the
same shapes through the same encoder, forward and backward or forward only, and update the encoder
with the same optimiser. Both run in turns in one process; `ratio` is the median over the rounds.
"""

import argparse
import functools
import importlib
import statistics
import time
import types
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn

from benchmarks import report
from ecg_jax import methods
from ecg_jax.data import resident
from ecg_jax.models.resnet1d import ResNet1D
from ecg_jax.models.siamese import encoder
from ecg_jax.run.experiment import Experiment, blank
from ecg_jax.runtime import parallel, process
from ecg_jax.training import feed, optim
from ecg_jax.training.state import init
from ecg_jax.training.step import dispatch_length, make_dispatch

SECONDS = 10.0  # of a record
RECORDS = 2304  # 18 batches of 128, as PTB-XL's subset has
TEXT = 384  # width of the report's embedding


class Pass(NamedTuple):
    """An encoder call: `views` of each record, of 1 / `parts` of its length, with a gradient or
    without one (a target network)."""

    views: int = 1
    parts: int = 1
    gradient: bool = True


ONE, TWO, TARGET = Pass(), Pass(2), Pass(2, gradient=False)
# What a method's paper needs per record and step, in the order of the calls.
PASSES: dict[str, Callable[[Any], tuple[Pass, ...]]] = {
    "etp": lambda m: (Pass(2 if m.invariance else 1),),
    "mets": lambda m: (Pass(2 if m.invariance else 1),),
    "simclr": lambda m: (TWO,),
    "byol": lambda m: (TWO, TARGET),
    "simsiam": lambda m: (TWO,),
    "moco": lambda m: (TWO, TARGET) if m.version == 3 else (ONE, Pass(gradient=False)),
    "swav": lambda m: (TWO,),
    "cpc": lambda m: (Pass(m.context + m.steps, m.context + m.steps),),
    "tstcc": lambda m: (Pass(round(2 * SECONDS / m.stretch), round(SECONDS / m.stretch)),),
    "cmc": lambda m: (Pass(len(m.groups)),),
    "pirl": lambda m: (ONE, Pass(m.pieces, m.pieces)),
    "clocs": lambda m: (
        {
            "cmsc": Pass(2, 2),
            "cmlc": Pass(m.leads_per_step),
            "cmsmlc": Pass(2 * m.leads_per_step, 2),
        }[m.kind],
    ),
    "astcl": lambda m: (TWO,),
}


# The same with another field of config.model, whose passes are others.
VARIANTS = ("etp:invariance=0.5", "moco:version=3", "clocs:kind=cmlc", "clocs:kind=cmsmlc")


class Call(NamedTuple):
    """An encoder call as it is made: x [N, T, 12], in training mode or not."""

    N: int
    T: int
    train: bool
    gradient: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--methods",
        default=",".join((*PASSES, *VARIANTS)),
        help="comma-separated: NAME or, with another field of config.model, NAME:FIELD=VALUE",
    )
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one side in one round")
    parser.add_argument("--width", type=int, default=64, help="of the network's first stage")
    args = parser.parse_args()
    process.configure()
    rows = []
    for item in args.methods.split(","):
        name, _, field = item.partition(":")
        if name not in PASSES:
            parser.error(f"no passes are declared for {name!r}: there are {', '.join(PASSES)}")
        try:
            c = configured(name, field)
        except ValueError as error:
            parser.error(f"--methods {item}: {error}")
        rows.append({"method": item, **measure(name, c, args)})
    report.show(rows, batch=args.batch, rate=args.rate, width=args.width, rounds=args.rounds)


def configured(name: str, field: str) -> Any:
    """The config of a method, with a field of config.model set as `FIELD=VALUE` says.

    Raises:
      ValueError: no such field, or a value of another type.
    """
    c = importlib.import_module(f"configs.{name}").get_config(None)
    if field:
        key, _, value = field.partition("=")
        if key not in c.model:
            raise ValueError(f"config.model has no {key!r}")
        kind = type(c.model[key])
        if kind not in (int, float, str):
            raise ValueError(f"config.model.{key} is neither a number nor a word")
        c.model[key] = kind(value)
    return c


def measure(name: str, c: Any, args: argparse.Namespace) -> dict[str, Any]:
    """The row of one method."""
    c.batch_size, c.shards, c.rate = args.batch, min(c.shards, args.batch), args.rate
    c.model.width = args.width
    mesh = parallel.make_mesh(jax.devices()[:1])
    method = methods.build(c)
    tower: Any = types.SimpleNamespace(width=TEXT)
    experiment = Experiment(c, mesh, method, tower if method.encode_text else None)
    steps = resident.steps_per_epoch(RECORDS, c.batch_size, c.shards)
    plan = methods.Plan(RECORDS, c.epochs * steps)
    optimizer = optim.build(c, steps)
    state = init(experiment, optimizer, plan)
    calls = encoder_calls(name, c, method, state)
    length = dispatch_length(c, 0, steps, method.platform)
    dispatch = make_dispatch(c, method, optimizer, steps)
    sides = {
        "step": Side(lambda old, fed: dispatch(old, fed, length), state, data(c, mesh), length),
        "passes": Side(*passes(c, optimizer, calls, length), length),
    }
    times: dict[str, list[float]] = {side: [] for side in sides}
    for i in range(args.rounds):
        for side in list(sides) if i % 2 == 0 else list(sides)[::-1]:
            times[side].append(sides[side].run(args.seconds))
    ratios = [a / b for a, b in zip(times["step"], times["passes"], strict=True)]
    return {
        "passes": ", ".join(described(call, c.batch_size) for call in calls),
        "step_s": statistics.median(times["step"]),
        "passes_s": statistics.median(times["passes"]),
        "ratio": statistics.median(ratios),
        "ratio_most": max(ratios),
    }


def encoder_calls(name: str, c: Any, method: methods.Method, state: Any) -> list[Call]:
    """The calls of the encoder in the method's loss, found by tracing it; they must be those that
    are declared."""
    seen = []

    def watch(call, args, options, context):
        if isinstance(context.module, ResNet1D) and context.method_name == "__call__":
            training = options["train"] if "train" in options else args[1]
            seen.append((*args[0].shape[:2], training))
        return call(*args, **options)

    view = blank(round(c.seconds * c.rate), TEXT if method.encode_text else 0)
    batch = jax.tree.map(lambda x: jnp.repeat(x[:1], c.batch_size, axis=0), view)
    with nn.intercept_methods(watch):
        jax.eval_shape(method.loss, state.params, state.method, batch, jax.random.key(0))
    declared = PASSES[name](c.model)
    T = round(c.seconds * c.rate)
    wanted = [(p.views * c.batch_size, T // p.parts) for p in declared]
    if [N for N, *_ in seen] != [N for N, _ in wanted] or any(
        longest < T for (_, T, _), (_, longest) in zip(seen, wanted, strict=True)
    ):
        raise SystemExit(
            f"{name} calls its encoder on {[call[:2] for call in seen]} (records, samples), and "
            f"{wanted} are declared: correct PASSES"
        )
    return [Call(*call, gradient=p.gradient) for call, p in zip(seen, declared, strict=True)]


def data(c: Any, mesh: jax.sharding.Mesh) -> feed.Data:
    """Noise in place of records, resident; each is a patient's only one."""
    rng = np.random.default_rng(0)
    ecg = rng.normal(0, 300, (RECORDS, round(c.seconds * c.rate), 12)).astype(np.int16)
    mask, rows = np.ones((RECORDS, 12), bool), np.arange(RECORDS, dtype=np.int32)
    split = resident.put(mesh, ecg, mask, rows, shards=c.shards, seed=0)
    text = rng.normal(size=(RECORDS, TEXT)).astype(np.float32)
    copies = parallel.replicated(mesh)
    return feed.Data(split, feed.Tables(*(parallel.put(x, copies) for x in (text, rows, rows))))


def passes(
    c: Any, optimizer: optax.GradientTransformation, calls: list[Call], length: int
) -> tuple[Callable, Any, list[jax.Array]]:
    """The peer: (run(state, inputs) -> (state, losses [length]), state, inputs)."""
    network, rng = encoder(c), np.random.default_rng(0)
    inputs = [jnp.asarray(rng.standard_normal((N, T, 12)), jnp.float32) for N, T, *_ in calls]
    variables = jax.jit(functools.partial(network.init, train=False))(
        jax.random.key(0), inputs[0][:1]
    )

    def loss(params: Any, stats: Any, inputs: list[jax.Array]) -> tuple[jax.Array, Any]:
        total, new = jnp.float32(0), stats
        for call, x in zip(calls, inputs, strict=True):
            weights = params if call.gradient else jax.lax.stop_gradient(params)
            features, updated = network.apply(
                {"params": weights, "batch_stats": stats}, x, call.train, mutable=["batch_stats"]
            )
            total += jnp.square(features).mean()
            new = updated["batch_stats"] if call.gradient else new
        return total, new

    def update(inputs: list[jax.Array], state: Any, _: None) -> tuple[Any, jax.Array]:
        params, stats, moments = state
        (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(params, stats, inputs)
        change, moments = optimizer.update(gradient, moments, params)
        return (optax.apply_updates(params, change), stats, moments), value

    @functools.partial(jax.jit, donate_argnums=0)
    def run(state: Any, inputs: list[jax.Array]) -> tuple[Any, jax.Array]:
        once = functools.partial(update, inputs)
        if length > 1:  # on an accelerator: see training.step
            return jax.lax.scan(once, state, length=length)
        state, value = once(state, None)
        return state, value[None]

    params, stats = variables["params"], variables["batch_stats"]
    return run, (params, stats, optimizer.init(params)), inputs


class Side:
    """A program that goes on from its own state, compiled by a first call."""

    def __init__(self, call: Callable, state: Any, fed: Any, length: int):
        self.call, self.state, self.fed, self.length = call, state, fed, length
        self._once()

    def run(self, seconds: float) -> float:
        """Seconds per step, over whole calls that take so long or longer."""
        start, steps = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds or not steps:
            self._once()
            steps += self.length
        return elapsed / steps

    def _once(self) -> None:
        self.state, out = self.call(self.state, self.fed)
        jax.block_until_ready((self.state, out))


def described(call: Call, batch: int) -> str:
    kind = "forward and backward" if call.gradient else "forward"
    return f"{call.N // batch} x {call.T} {kind}"


if __name__ == "__main__":
    main()
