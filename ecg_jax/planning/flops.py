"""Arithmetic of a program, counted before XLA sees it: matrix products and convolutions.

A multiplication and an addition are two. What is elementwise is left out: it is none of what the
matrix units do, and their rate is what the count is set against.
"""

import copy
import math
from collections.abc import Iterator
from typing import Any

import jax

from ecg_jax import Config
from ecg_jax.methods import Plan, build
from ecg_jax.run.experiment import blank


def flops_per_record(config: Config, width: int) -> float:
    """What a record of a training step takes by the model's definition, forward and backward: for
    model FLOP utilisation.

    Convolutions count as they are defined (Winograd's form takes fewer products), and what
    `model.remat` computes again counts once. The loss is traced and not run, in some seconds.

    Args:
      width: of the text embeddings; 0 for a method without a text side.
    """
    c = copy.deepcopy(config)
    c.accumulate, c.parallel.loss, c.parallel.batch_norm = 1, "plain", "global"
    c.model.convolution, c.model.remat = "plain", False
    method, B, T = build(c), c.batch_size, round(c.seconds * c.rate)

    def gradient(key: jax.Array) -> Any:
        one = blank(T, width)
        params, state = method.init(key, one)
        if method.memory is not None:
            state = {**state, "memory": method.memory(params, state, Plan(10**6, 10**6))}
        view = jax.tree.map(lambda x: jax.numpy.repeat(x, B, axis=0), one)
        return jax.value_and_grad(method.loss, has_aux=True)(params, state, view, key)

    def start(key: jax.Array) -> Any:  # what `gradient` counts beside the loss
        return method.init(key, blank(T, width))

    whole, first = (jax.make_jaxpr(f)(jax.random.key(0)) for f in (gradient, start))
    return (of_jaxpr(whole) - of_jaxpr(first)) / B


def of_jaxpr(jaxpr: Any, devices: int = 1) -> float:
    """Multiplications and additions of a jaxpr and of all that it calls; of all devices together.

    Of two branches the dearer counts. A loop whose length is not known counts once.

    Args:
      devices: of the mesh; what is under `shard_map` runs on each.
    """
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    return sum(_equation(eqn, devices) for eqn in inner.eqns)


def _equation(eqn: Any, devices: int) -> float:
    name = eqn.primitive.name
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        return 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(shape[i] for i in contracted)
    if name == "conv_general_dilated":
        return _convolution(eqn)
    if name == "cond":
        return max(of_jaxpr(branch, devices) for branch in eqn.params["branches"])
    times = eqn.params["length"] if name == "scan" else devices if name == "shard_map" else 1
    return times * sum(of_jaxpr(inner, devices) for inner in _called(eqn.params))


def _called(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs among an equation's parameters; of a custom gradient only what is called."""
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(getattr(item, "jaxpr", item), "eqns"):
                yield item


def _convolution(eqn: Any) -> float:
    """Without the products with the zeros that dilation puts between samples (the gradients of a
    strided convolution), but with those of the padding at the ends, as is usual."""
    numbers = eqn.params["dimension_numbers"]
    kernel = eqn.invars[1].aval.shape
    taps = math.prod(kernel[i] for i in numbers.rhs_spec[2:])
    if math.prod(eqn.params["lhs_dilation"]) > 1:  # each sample there is meets every tap
        outputs = kernel[numbers.rhs_spec[0]] // eqn.params["feature_group_count"]
        return 2.0 * math.prod(eqn.invars[0].aval.shape) * taps * outputs
    inputs = kernel[numbers.rhs_spec[1]]  # of one group of channels
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) * taps * inputs
