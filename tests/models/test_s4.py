"""The state-space encoder: its convolution and kernel against sums written out, and its size."""

import jax
import jax.numpy as jnp
import numpy as np

from ecg_jax.models import s4
from ecg_jax.runtime import parallel


def test_parameters():
    x = jnp.zeros((1, 64, 12))
    made = jax.eval_shape(lambda k: s4.S4(s4.SIZES["base"]).init(k, x, False), jax.random.key(0))
    assert sum(p.size for p in jax.tree.leaves(made["params"])) == 2_642_432


def test_convolution_reads_both_directions():
    rng, T, H = np.random.default_rng(0), 13, 3
    x, ahead, back = rng.standard_normal((8, T, H)), *rng.standard_normal((2, H, T))
    wanted = np.zeros_like(x)
    for t in range(T):
        for s in range(T):
            k = ahead[:, t - s] if s <= t else back[:, s - t - 1]
            wanted[:, t] += k * x[:, s]
    for devices in (1, 8):
        mesh = parallel.make_mesh(jax.devices()[:devices])
        on = parallel.put(x.astype(np.float32), parallel.by_record(mesh))
        with jax.set_mesh(mesh):
            y = jax.jit(s4.convolve)(on, ahead.astype(np.float32), back.astype(np.float32))
        np.testing.assert_allclose(y, wanted, atol=1e-4)


def test_kernel_is_that_of_the_state_space():
    """x_{t+1} = A x_t + B u_t, y_t = C x_t, step by step, with the zero-order hold."""
    kernel, T = s4.Kernel(2, 3), 9
    params = kernel.init(jax.random.key(0), T)
    p = {name: np.asarray(value, np.float64) for name, value in params["params"].items()}
    a = -np.exp(p["log_decay"]) + 1j * p["pitch"]
    step = np.exp(p["log_step"])
    discrete = np.exp(step * a)
    entering, c = (discrete - 1) / a, p["kernel"][0] + 1j * p["kernel"][1]
    state, wanted = entering, []
    for _ in range(T):
        wanted.append(2 * (c * state).sum(axis=1).real)
        state = discrete * state
    np.testing.assert_allclose(kernel.apply(params, T), np.stack(wanted, axis=1), atol=1e-5)
    np.testing.assert_allclose(p["pitch"][0], np.pi * np.arange(3), rtol=1e-6)


def test_a_record_reaches_every_position_and_the_map_is_pooled():
    network = s4.S4(s4.Size(1, 4, 2))
    x = jax.random.normal(jax.random.key(0), (2, 100, 12))
    variables = network.init(jax.random.key(1), x, False)
    run = jax.jit(lambda x, pool: network.apply(variables, x, False, pool), static_argnums=1)
    maps, features = run(x, False), run(x, True)
    assert maps.shape == (2, 3, 4)
    np.testing.assert_allclose(features, maps.mean(axis=1), atol=1e-6)
    moved = run(x.at[:, 50].add(5.0), False)
    assert (np.abs(moved - maps).max(axis=(0, 2)) > 1e-4).all()
