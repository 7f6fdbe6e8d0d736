"""A state's arrays side by side in few long ones, while an accelerator works on it: what an update
does to some hundred arrays is then done by a few kernels. What is saved, restored and shown has its
arrays apart."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from ecg_jax.training import optim

Tree = Any


class Packing:
    """A tree with its vectors side by side in one (scales, biases, statistics, their averages), as
    a loop carries it."""

    def __init__(self, tree: Tree, layout: Tree = None):
        """`layout` [as the tree] holds PartitionSpecs; what lies in parts is not packed."""
        leaves, self._tree = jax.tree.flatten(tree)
        whole = [PartitionSpec()] * len(leaves)
        specs = whole if layout is None else self._tree.flatten_up_to(layout)
        self._shapes = [leaf.shape for leaf in leaves]
        self._packed = [
            leaf.ndim <= 1 and leaf.dtype == jnp.float32 and not any(spec)
            for leaf, spec in zip(leaves, specs, strict=True)
        ]

    def pack(self, tree: Tree) -> tuple[jax.Array, list[jax.Array]]:
        leaves = list(zip(jax.tree.leaves(tree), self._packed, strict=True))
        vectors = [leaf.reshape(-1) for leaf, packed in leaves if packed]
        return jnp.concatenate(vectors), [leaf for leaf, packed in leaves if not packed]

    def unpack(self, carry: tuple[jax.Array, list[jax.Array]]) -> Tree:
        vector, others = carry
        leaves, start, rest = [], 0, iter(others)
        for shape, packed in zip(self._shapes, self._packed, strict=True):
            if not packed:
                leaves.append(next(rest))
                continue
            size = math.prod(shape)
            leaves.append(vector[start : start + size].reshape(shape))
            start += size
        return jax.tree.unflatten(self._tree, leaves)


class Forms:
    """How an update holds a tree of parameters, or of what goes with them: as it is."""

    def flat(self, tree: Tree) -> Tree:
        return tree

    def tree(self, flat: Tree) -> Tree:
        return flat

    def gradient(self, tree: Tree) -> Tree:
        return self.flat(tree)

    def everywhere(self, state: Tree) -> Tree:
        """With each tree of it that is as the parameters are (moments, averages) in this form."""
        return state

    def apart(self, state: Tree) -> Tree:
        """The state that `everywhere` was given."""
        return state


class Packed(Forms):
    """As it is, but for gradients, whose vectors are parts of one that a single kernel writes."""

    def gradient(self, tree: Tree) -> Tree:
        packing = Packing(tree)
        vector, others = packing.pack(tree)
        return packing.unpack((jax.lax.optimization_barrier(vector), others))


class Flat(NamedTuple):
    """All arrays of a tree, named and of two dimensions as what they are for `optim.matrices`; of
    each its last axis first, as cuDNN lays out the kernels of convolutions.

    Attributes:
      kernel: float32 [N, 1], what weight decay is meant for.
      bias: float32 [n, 1], the others.
    """

    kernel: jax.Array
    bias: jax.Array


class Flattened(Forms):
    """As a `Flat`."""

    def __init__(self, params: Tree):
        leaves, self._treedef = jax.tree.flatten(params)
        self._shapes = [leaf.shape for leaf in leaves]
        self._decayed = jax.tree.leaves(optim.matrices(params))

    def flat(self, tree: Tree) -> Flat:
        leaves = map(_last_first, jax.tree.leaves(tree))
        kinds = list(zip(leaves, self._decayed, strict=True))
        parts = ([leaf.reshape(-1, 1) for leaf, d in kinds if d == kind] for kind in (True, False))
        return Flat(*(jnp.concatenate(part) if part else jnp.zeros((0, 1)) for part in parts))

    def tree(self, flat: Flat) -> Tree:
        leaves, start = [], {True: 0, False: 0}
        for shape, kind in zip(self._shapes, self._decayed, strict=True):
            size, array = math.prod(shape), flat.kernel if kind else flat.bias
            found = array[start[kind] : start[kind] + size].reshape(*shape[-1:], *shape[:-1])
            leaves.append(jnp.moveaxis(found, 0, -1) if shape else found)
            start[kind] += size
        return jax.tree.unflatten(self._treedef, leaves)

    def everywhere(self, state: Tree) -> Tree:
        return jax.tree.map(
            lambda x: self.flat(x) if self._alike(x) else x, state, is_leaf=self._alike
        )

    def apart(self, state: Tree) -> Tree:
        return jax.tree.map(
            lambda x: self.tree(x) if isinstance(x, Flat) else x,
            state,
            is_leaf=lambda x: isinstance(x, Flat),
        )

    def _alike(self, x: Tree) -> bool:
        leaves, treedef = jax.tree.flatten(x)
        return treedef == self._treedef and [leaf.shape for leaf in leaves] == self._shapes


def _last_first(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(x, -1, 0) if x.ndim else x
