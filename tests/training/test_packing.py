"""A state's arrays side by side: an update makes of them what it makes of the arrays apart."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ecg_jax.training import optim
from ecg_jax.training.packing import Flat, Flattened, Packing

SHAPES = {
    "encoder": {"conv": {"kernel": (3, 2, 4)}, "norm": {"scale": (4,), "bias": (4,)}},
    "head": {"kernel": (4, 5), "bias": (5,)},
    "attention": {"query": {"kernel": (4, 2, 2), "bias": (2, 2)}},
    "log_scale": (),
}


def tree(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.standard_normal(shape), jnp.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def same(a, b, tolerance=0.0):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b
    )


def test_there_and_back():
    params, form = tree(0), Flattened(tree(0))
    state = {"step": jnp.int32(3), "params": params, "moments": [tree(1), tree(2)]}
    flat = form.everywhere(state)
    assert isinstance(flat["params"], Flat) and isinstance(flat["moments"][1], Flat)
    same(form.apart(flat), state)
    same(form.tree(form.flat(params)), params)
    packing = Packing(state)
    vector, others = packing.pack(state)
    assert vector.ndim == 1 and all(x.ndim != 1 or x.dtype != jnp.float32 for x in others)
    same(packing.unpack((vector, others)), state)


def test_what_decays_is_the_same():
    params, form = tree(0), Flattened(tree(0))
    assert optim.matrices(form.flat(params)) == Flat(True, False)
    decayed = [
        p.size
        for p, d in zip(
            jax.tree.leaves(params), jax.tree.leaves(optim.matrices(params)), strict=True
        )
        if d
    ]
    assert form.flat(params).kernel.size == sum(decayed) == 24 + 20 + 16


def test_updates_are_those_of_the_arrays_apart():
    """Clipping, AdamW with decay, three updates: to the last bit but for the norm's order."""
    optimizer = optax.chain(
        optim.clip_by_norm(1.0), optax.adamw(0.1, weight_decay=0.5, mask=optim.matrices)
    )
    params, form = tree(0), Flattened(tree(0))
    state, flat = optimizer.init(params), form.flat(params)
    flat_state = form.everywhere(optimizer.init(params))
    for seed in range(1, 4):
        gradient = tree(seed)
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        updates, flat_state = optimizer.update(form.flat(gradient), flat_state, flat)
        flat = optax.apply_updates(flat, updates)
    same(form.tree(flat), params, 1e-6)
    same(form.apart(flat_state), state, 1e-6)
