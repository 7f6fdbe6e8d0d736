"""Losses against float64 oracles."""

import jax
import numpy as np

from ecg_jax.runtime import parallel


def unit(rng, *shape):
    """Random unit vectors, float64 [*shape]."""
    x = rng.standard_normal(shape)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def check(loss, oracle, trained, fixed=(), *, devices=1, step=1e-6):
    """`loss` has the oracle's value, and its gradients in the arrays `trained` by central
    differences; in the arrays `fixed` its gradients are exactly zero. All [K, ...] are spread over
    so many devices by their first axis."""
    arrays = [*trained, *fixed]
    sharding = parallel.by_record(parallel.make_mesh(jax.devices()[:devices]))
    args = [parallel.put(x.astype(np.float32), sharding) for x in arrays]
    grad = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(len(args)))))
    value, gradients = grad(*args)
    np.testing.assert_allclose(value, oracle(*arrays), rtol=1e-5)
    for i, gradient in enumerate(gradients):
        if i >= len(trained):
            assert not np.any(gradient), f"argument {i} has a gradient"
            continue
        numeric = np.zeros_like(arrays[i])
        for at in np.ndindex(numeric.shape):
            sides = []
            for sign in (1, -1):
                moved = [x.copy() for x in arrays]
                moved[i][at] += sign * step
                sides.append(oracle(*moved))
            numeric[at] = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose(gradient, numeric, atol=1e-5 * max(1, np.abs(numeric).max()))
