"""Small networks and made-up records for the tests of methods."""

import importlib
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from ecg_jax import methods
from ecg_jax.methods.shared.towers import Towers
from ecg_jax.models.siamese import encoder
from ecg_jax.training.step import chosen

B, T, D = 16, 128, 8


def config(name, **model):
    """That of `configs/name.py`, for `B` records of `T` samples, with heads of `D` units."""
    c = importlib.import_module(f"configs.{name}").get_config("rate=100")
    c.batch_size, c.shards = B, 8
    c.model.update(width=4, hidden=12, dim=D, convolution="plain", **model)
    return c


def view(seed=0, records=B, samples=T):
    ecg = np.random.default_rng(seed).standard_normal((records, samples, 12)).astype(np.float32)
    rows = jnp.arange(records, dtype=jnp.int32)
    leads, text = jnp.ones((records, 12), bool), jnp.zeros((records, 0))
    return methods.View(jnp.asarray(ecg), leads, text, 0 * rows, rows, rows)


def start(method, steps=40):
    """(params, state) of a run of so many updates, with numbers such as training begins with."""
    params, state = filled(*jax.eval_shape(method.init, jax.random.key(0), view()))
    if method.memory is not None:
        state["memory"] = method.memory(params, state, methods.Plan(records=B, steps=steps))
    return params, state


def filled(params, statistics):
    """Kernels at random, as large as their fan-in asks for; the rest 1 or 0. (To compile the real
    initialisation takes longer than all else in these tests.)"""
    rng = np.random.default_rng(0)

    def fill(path, x):
        name = jax.tree_util.keystr(path[-1:])
        if len(x.shape) > 1:
            scale = np.sqrt(2 / np.prod(x.shape[:-1]))
            return jnp.asarray(scale * rng.standard_normal(x.shape), x.dtype)
        return jnp.full(x.shape, "scale" in name or "var" in name, x.dtype)

    return jax.tree_util.tree_map_with_path(fill, (params, statistics))


def two_views(view):
    """[B, 2, T, 12], in place of random ones."""
    return jnp.stack([view.ecg, 0.8 * jnp.roll(view.ecg, T // 4, axis=1)], axis=1)


def written(new, state):
    """A method's new state, what it writes into its memory being written."""
    return chosen(True, new, state)


def step(method):
    """jitted (params, state, View) -> ((loss, (new state, metrics)), gradients in both), of
    `two_views`."""

    def loss(params, state, view):
        with mock.patch.object(Towers, "views", lambda self, key, view: two_views(view)):
            value, (new, metrics) = method.loss(params, state, view, jax.random.key(0))
            return value, (written(new, state), metrics)

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True, allow_int=True))


def outputs(network, variables, x):
    """What a network makes of views x [B, V, T, 12] in training mode, as float64 [B, V, ...]."""

    def run(variables, x):
        out, _ = network.apply(
            variables, x.reshape(-1, *x.shape[2:]), train=True, mutable=["batch_stats"]
        )
        return jax.tree.map(lambda y: y.reshape(*x.shape[:2], -1), out)

    made = jax.jit(run)(variables, x)
    return jax.tree.map(lambda y: np.asarray(y, np.float64), made)


def encoded(config, params, state, x, length, **options):
    """What the encoder makes of each stretch of `length` samples by itself: [N, P, D]."""
    variables = {"params": params["encoder"], "batch_stats": state["batch_stats"]["encoder"]}
    N, P = len(x), x.shape[1] // length
    apart = x.reshape(N * P, length, -1)
    out = jax.jit(lambda x: encoder(config).apply(variables, x, **options))(apart)
    return jax.tree.map(lambda z: z.reshape(N, P, -1) if z.ndim == 2 else z, out)


def moved(tree, seed):
    """Other values, of every floating-point leaf."""
    rng = np.random.default_rng(seed)

    def other(x):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return (x * rng.uniform(0.7, 1.3, x.shape) + rng.uniform(0, 0.1, x.shape)).astype(x.dtype)

    return jax.tree.map(other, tree)


def largest(tree):
    """The largest size of a number in a tree of gradients."""
    leaves = [x for x in jax.tree.leaves(tree) if x.dtype != jax.dtypes.float0]
    return max(float(jnp.abs(x).max()) for x in leaves)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def check_average(new, old, online, momentum):
    """Every leaf of `new` is momentum * old + (1 - momentum) * online."""
    paths = jax.tree_util.tree_leaves_with_path(new)
    others = map(jax.tree.leaves, (old, online))
    for (path, leaf), before, now in zip(paths, *others, strict=True):
        expected = momentum * np.float64(before) + (1 - momentum) * np.float64(now)
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(leaf, expected, rtol=1e-5, atol=1e-6, err_msg=name)
