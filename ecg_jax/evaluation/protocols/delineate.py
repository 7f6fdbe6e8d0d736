"""Delineation: a U-Net decoder over an encoder's stages, trained to say of every sample of every
lead whether it is of a P wave, a QRS complex, a T wave or of none.

What is not labelled is in no loss and no figure. The update whose weights are kept is that with the
highest sample-level F1 on validation.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ecg_jax.data import normalize
from ecg_jax.data.leads import LEADS
from ecg_jax.data.records import Records
from ecg_jax.errors import UserError
from ecg_jax.evaluation import fractions
from ecg_jax.evaluation.figures import waves
from ecg_jax.evaluation.protocols.finetune import schedule
from ecg_jax.models.unet import Decoder
from ecg_jax.run.experiment import Experiment
from ecg_jax.runtime import parallel
from ecg_jax.training import optim

COARSEST = 0.040  # s between two positions of an encoder's finest stage

Tree = Any


class Delineated(NamedTuple):
    """Encoder and decoder trained together, and what was chosen on validation, in words."""

    params: Tree
    state: Tree
    note: str


class Delineator:
    """Trains decoders over the encoders of one experiment; compiled once for frozen ones and once
    for free ones."""

    def __init__(self, experiment: Experiment):
        """config.evaluate.delineate.

        Raises:
          UserError: records without segments, or an encoder that has no stages or coarse ones.
        """
        self._experiment, self._config = experiment, experiment.config.evaluate.delineate
        for split in (experiment.train, experiment.validation, experiment.test):
            if split.segments is None:
                raise UserError(
                    f"{split.dataset} says of no sample which wave it is of, which the protocol "
                    "delineate learns: use --dataset ludb"
                )
        if experiment.method.stages is None:
            raise UserError(
                f"{experiment.config.method}'s encoder sees records in parts or lead by lead, and "
                "has no stages in time that delineation could begin from"
            )
        self._run: Any = experiment.method.stages
        self._decoder = Decoder(self._config.width, len(waves.NAMES))
        self._optimizer = optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.scale_by_adam(),
            optax.add_decayed_weights(self._config.weight_decay, mask=optim.matrices),
        )
        copies = parallel.replicated(experiment.mesh)
        self._copies = copies
        self._update = jax.jit(self._updated, static_argnames="free", out_shardings=copies)
        self._logits = jax.jit(self._predicted, out_shardings=copies)

    def fit(
        self, params: Tree, state: Tree, train: Records, *, free: bool, seed: int
    ) -> Delineated:
        """Trains a decoder and, if `free`, the encoder that begins at `params` and `state`.

        Raises:
          UserError: an encoder whose finest stage is coarser than `COARSEST`; a loss that is not
            finite.
        """
        c, validation = self._config, self._experiment.validation
        self._check_stages(params, state, train)
        now = self._start(params, state, train)
        rates = schedule(c.learning_rate, c.updates)
        ends = {-(-c.updates * part // c.looks) for part in range(1, c.looks + 1)}
        best, note = None, ""
        for step, (rows, rate) in enumerate(
            zip(self._batches(len(train), seed), rates, strict=True)
        ):
            batch = self._batch(train, rows)
            now, loss = self._update(now, batch, rate, free=free)
            if step + 1 not in ends:
                continue
            if not np.isfinite(loss):
                raise UserError(
                    f"delineate: the loss is {float(loss)} at update {step + 1}: set "
                    "--config.evaluate.delineate.learning_rate lower"
                )
            f1 = self._f1(now, validation)
            if best is None or f1 > best[0]:
                best = f1, now
                note = f"update {step + 1} of {c.updates}, validation sample F1 {f1:.3f}"
        assert best is not None
        return Delineated(best[1]["params"], best[1]["method"], note)

    def predict(self, fitted: Delineated, split: Records) -> np.ndarray:
        """uint8 [N, T, 12], decoded under the rules of what follows what."""
        now, out = {"params": fitted.params, "method": fitted.state}, []
        for log_p in self._scored(now, split):
            by_lead = log_p.transpose(0, 2, 1, 3)
            path = waves.decode(
                by_lead.reshape(-1, *by_lead.shape[2:]).astype(np.float64), split.rate
            )
            out.append(path.reshape(by_lead.shape[:3]).transpose(0, 2, 1))
        return np.concatenate(out)

    def _f1(self, now: Tree, split: Records) -> float:
        """Macro sample-level F1 of the waves, without decoding."""
        total = np.zeros((4, 4))
        assert split.segments is not None and split.segments_mask is not None
        for i, log_p in enumerate(self._scored(now, split)):
            part = slice(i * self._config.batch_size, (i + 1) * self._config.batch_size)
            known = split.segments_mask[part]
            pairs = 4 * split.segments[part][known].astype(int) + log_p.argmax(axis=3)[known]
            total += np.bincount(pairs, minlength=16).reshape(4, 4)
        both = total.sum(axis=0) + total.sum(axis=1)
        return float((2 * np.diagonal(total) / np.maximum(both, 1))[1:].mean())

    def _scored(self, now: Tree, split: Records) -> Iterator[np.ndarray]:
        """Logarithms of probabilities [n, T, 12, 4], a batch of records at a time."""
        size = self._config.batch_size
        for start in range(0, len(split), size):
            rows = np.minimum(np.arange(start, start + size), len(split) - 1)
            ecg, mask, _, _ = self._batch(split, rows)
            found = np.asarray(self._logits(now, ecg, mask))
            yield found[: len(split) - start]

    def _batch(self, split: Records, rows: np.ndarray) -> tuple:
        sharding = parallel.by_record(self._experiment.mesh)
        assert split.segments is not None and split.segments_mask is not None
        known = split.segments_mask & split.lead_mask[:, None]
        return tuple(
            parallel.put_rows(array, rows, sharding)
            for array in (split.ecg, split.lead_mask, split.segments, known)
        )

    def _batches(self, N: int, seed: int) -> Iterator[np.ndarray]:
        """Rows of each update: all records once, in a new order, before any comes again."""
        rng, size = np.random.default_rng(seed), self._config.batch_size
        left = np.zeros(0, int)
        for _ in range(self._config.updates):
            while len(left) < size:
                left = np.concatenate([left, rng.permutation(N)])
            yield left[:size]
            left = left[size:]

    def _start(self, params: Tree, state: Tree, train: Records) -> Tree:
        x, mask = self._normalised(*self._batch(train, np.zeros(self._config.batch_size, int))[:2])
        stages, _ = self._run(params, state, x, mask, False)
        decoder = self._decoder.init(jax.random.key(self._experiment.config.seed), stages, x)
        trained = jax.device_put({"encoder": params, "decoder": decoder["params"]}, self._copies)
        moments = jax.jit(self._optimizer.init, out_shardings=self._copies)(trained)
        return {
            "params": trained,
            "method": jax.device_put(state, self._copies),
            "moments": moments,
        }

    def _check_stages(self, params: Tree, state: Tree, train: Records) -> None:
        T, rate = train.ecg.shape[1], train.rate
        shape = jax.ShapeDtypeStruct((1, T, len(LEADS)), jnp.float32)
        mask = jax.ShapeDtypeStruct((1, len(LEADS)), jnp.bool_)
        run = self._run
        stages, _ = jax.eval_shape(
            lambda p, s, x, m: run(p, s, x, m, False), params, state, shape, mask
        )
        finest = max((stage.shape[1] for stage in stages), default=1)
        apart = T / rate / finest
        if apart > COARSEST * 1.01:
            raise UserError(
                f"the encoder's finest stage has a position every {1000 * apart:.0f} ms, and "
                f"delineation needs one every {1000 * COARSEST:.0f} ms"
            )

    def _normalised(self, ecg: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        return normalize.normalize(ecg, mask, self._experiment.config.normalize), mask

    def _decoded(
        self, params: Tree, method: Tree, ecg, mask, train: bool
    ) -> tuple[jax.Array, Tree]:
        x, mask = self._normalised(ecg, mask)
        run = self._run
        stages, method = run(params["encoder"], method, x, mask, train)
        logits: Any = self._decoder.apply({"params": params["decoder"]}, stages, x)
        return logits, method

    def _predicted(self, now: Tree, ecg: jax.Array, mask: jax.Array) -> jax.Array:
        logits, _ = self._decoded(now["params"], now["method"], ecg, mask, False)
        return jax.nn.log_softmax(logits)

    def _updated(self, now: Tree, batch: tuple, rate: jax.Array, *, free: bool) -> tuple[Tree, Any]:
        ecg, mask, segments, known = batch

        def loss(params: Tree) -> tuple[jax.Array, Tree]:
            if not free:
                params = {**params, "encoder": jax.lax.stop_gradient(params["encoder"])}
            logits, method = self._decoded(params, now["method"], ecg, mask, free)
            each = optax.softmax_cross_entropy_with_integer_labels(logits, segments.astype(int))
            return jnp.sum(jnp.where(known, each, 0)) / jnp.maximum(known.sum(), 1), method

        with parallel.mesh_of(ecg):
            (value, method), gradient = jax.value_and_grad(loss, has_aux=True)(now["params"])
        updates: Any
        updates, moments = self._optimizer.update(gradient, now["moments"], now["params"])
        rates = {"encoder": rate * self._config.encoder_rate * free, "decoder": rate}
        params = {
            name: jax.tree.map(lambda p, u, r=r: p - r * u, now["params"][name], updates[name])
            for name, r in rates.items()
        }
        return {"params": params, "method": method, "moments": moments}, value


def share(train: Records, fraction: float, seed: int) -> tuple[Records, str]:
    """The training records of so many of the patients, and how many those are in words."""
    everyone = np.ones((len(train), 1), bool)
    chosen = fractions.draw(everyone, train.patient_id, fraction, seed)
    return (train if fraction == 1 else train.take(chosen.rows)), f"trained on {len(chosen.rows)}"
