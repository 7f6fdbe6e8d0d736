"""Contrastive losses between two sets of embeddings of the same records.

Those against reports have three forms of equal value and gradient, which differ in what a device
holds (global batch K on n devices): `plain` and `gathered` K x K / n similarities, `ring` (K / n)
squared.
"""

import jax
import jax.numpy as jnp
from jax.nn import logsumexp

from ecg_jax.losses import sharded
from ecg_jax.runtime import parallel

FORMS = ("plain", *sharded.FORMS)


def symmetric_info_nce(
    e: jax.Array,
    t: jax.Array,
    temperature: jax.Array | float,
    group: jax.Array | None = None,
    form: str = "plain",
    softness: float = 0.0,
    patient: jax.Array | None = None,
) -> jax.Array:
    """ETP equations 3-5, METS equations 2-4: symmetric InfoNCE over the global batch.

        L = 1/2K sum_i [ -log softmax_j(e_i . t_j / tau)_i - log softmax_j(t_i . e_j / tau)_i ]

    Under `jax.jit` with the batch sharded over the mesh, the plain form's `e @ t.T` gathers the
    other side's embeddings, so every record meets all K texts of the global batch.

    Args:
      e, t: float32 [K, D], of unit length; row i of both belongs to record i.
      temperature: tau.
      group: int [K] or None. Records of one group (the same report, word for word) are all
        positives of each other: the target is spread evenly over the group's members, instead
        of calling a record's own report a negative because a neighbour has it too. None is the
        papers' loss. Or float32 [K, F], unit vectors of the frozen text tower: the target of
        record i is then spread over all records j, in proportion to exp(cos(i, j) / softness).
      softness: above 0 with such vectors; the larger, the more a similar report counts.
      form: one of `FORMS`; all but `plain` need a mesh, `jax.set_mesh`.
      patient: int [K] or None. Records of one patient and of different reports are then neither
        positives nor negatives of each other: such a pair is left out of every softmax.

    Returns:
      float32 scalar.
    """
    group = _groups(e, group)
    kin = sharded.Kin(group, patient)
    if group.ndim == 2 and not softness > 0:
        raise ValueError(f"soft targets need a softness above zero, not {softness}")
    if form != "plain":
        return sharded.symmetric_info_nce(e, t, temperature, kin, form, softness)
    logits = (e @ parallel.whole(t).T) / temperature
    weight, spared = sharded.kinship(kin, jax.tree.map(parallel.whole, kin), softness)
    # Kinship is mutual: a column's members, summed over the devices, are those of its row.
    target = weight / weight.sum(axis=1, keepdims=True) + weight / weight.sum(axis=0)
    met = sharded.met(logits, spared)
    negative = logsumexp(met, axis=1).mean() + logsumexp(met, axis=0).mean()
    return 0.5 * (negative - jnp.sum(target * logits, axis=1).mean())


def info_nce(a: jax.Array, b: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """ETP equation 6: InfoNCE over the global batch, from each row of a to its own of b among all
    K, in one direction as it is printed.

    Args:
      a, b: float32 [K, D], of unit length; row i of both is a view of record i.
      temperature: sigma_2.

    Returns:
      float32 scalar.
    """
    r = a @ b.T / temperature
    return jnp.mean(logsumexp(r, axis=1) - jnp.diagonal(r))


def nt_xent(a: jax.Array, b: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """SimCLR's loss (Chen et al. 2020, arXiv 2002.05709, equation 1) over the global batch: every
    view against its partner, with all 2 (K - 1) views of other records as negatives.

    Args:
      a, b: float32 [K, D], of unit length; row i of both is a view of record i.
      temperature: tau.

    Returns:
      float32 scalar, the mean over the 2 K views.
    """
    between, ones = a @ b.T / temperature, jnp.eye(len(a), dtype=bool)
    within_a, within_b = (jnp.where(ones, -jnp.inf, x @ x.T / temperature) for x in (a, b))
    positive = jnp.diagonal(between)
    of_a = logsumexp(jnp.concatenate([between, within_a], axis=1), axis=1)
    of_b = logsumexp(jnp.concatenate([between.T, within_b], axis=1), axis=1)
    return jnp.mean(of_a + of_b - 2 * positive) / 2


def sigmoid(
    e: jax.Array,
    t: jax.Array,
    temperature: jax.Array | float,
    bias: jax.Array | float,
    group: jax.Array | None = None,
    form: str = "plain",
    patient: jax.Array | None = None,
) -> jax.Array:
    """SigLIP's loss (Zhai et al. 2023, arXiv 2303.15343, section 3.2): every pair for itself.

        L = -1/K sum_ij log sigmoid(z_ij (e_i . t_j / tau + b)),  z_ij = 1 if i = j, else -1

    Args:
      bias: b; the paper starts it at -10, with tau at 0.1.
      group: int [K] or None; z_ij = 1 for records of one group too.

    The other arguments and the result are as in `symmetric_info_nce`.
    """
    kin = sharded.Kin(_groups(e, group), patient)
    if form != "plain":
        return sharded.sigmoid(e, t, temperature, bias, kin, form)
    whole = jax.tree.map(parallel.whole, kin)
    return sharded.sigmoid_sum(e, parallel.whole(t), kin, whole, temperature, bias) / len(e)


def _groups(e: jax.Array, group: jax.Array | None) -> jax.Array:
    return jnp.arange(len(e)) if group is None else group
