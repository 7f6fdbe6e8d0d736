"""The quantizer of wav2vec 2.0 (Baevski et al. 2020, section 3.1): groups of codes, one of each
chosen by the Gumbel-softmax (Jang et al. 2017, arXiv 1611.01144), straight through."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

GROUPS, CODES, WIDTH = 2, 320, 256  # of the codebook; WIDTH of the groups' entries side by side
WARMEST, COOLEST, COOLING = 2.0, 0.5, 0.999995  # temperature: at first, at last, per update


class Quantized(NamedTuple):
    """vector float32 [..., WIDTH]; codes int32 [..., G]; logits float32 [..., G, V]."""

    vector: jax.Array
    codes: jax.Array
    logits: jax.Array


def temperature(updates: jax.Array | int) -> jax.Array:
    """Of the Gumbel-softmax after so many updates; .5 from update 277,259 on."""
    cooled = WARMEST * jnp.exp(math.log(COOLING) * jnp.asarray(updates, jnp.float32))
    return jnp.maximum(cooled, COOLEST)


class Quantizer(nn.Module):
    """u [..., C] -> `Quantized`: without noise the codes of the largest logits; with `noise` [...,
    G, V], of Gumbel, those of the largest noisy ones, and the gradient of the soft choice."""

    @nn.compact
    def __call__(
        self, u: jax.Array, tau: jax.Array | float = 1.0, noise: jax.Array | None = None
    ) -> Quantized:
        shape = (GROUPS, CODES, WIDTH // GROUPS)
        codebook = self.param("codebook", nn.initializers.uniform(1.0), shape)
        dense = nn.Dense(GROUPS * CODES, kernel_init=nn.initializers.normal(1.0), name="logits")
        logits = dense(u.astype(jnp.float32)).reshape(*u.shape[:-1], GROUPS, CODES)
        noisy = logits if noise is None else (logits + noise) / tau
        codes = jnp.argmax(noisy, axis=-1)
        chosen = jax.nn.one_hot(codes, CODES)
        if noise is not None:
            soft = jax.nn.softmax(noisy, axis=-1)
            chosen = jax.lax.stop_gradient(chosen - soft) + soft
        vector = jnp.einsum("...gv,gvd->...gd", chosen, codebook)
        return Quantized(vector.reshape(*u.shape[:-1], WIDTH), codes, logits)
