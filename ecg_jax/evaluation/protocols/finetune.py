"""Full fine-tuning: an encoder and a linear multi-label head, trained together on labels.

From a pre-trained start this is fine-tuning, from a random one supervised training from scratch, as
METS's baselines are (Li et al. 2023, section 4.3). Both minimise the sigmoid cross-entropy under
one chain of augmentations, whatever the method was pre-trained with, with AdamW, a warm-up and a
cosine to zero. The learning rate and the epoch whose weights are kept are those with the highest
macro AUROC on validation.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ecg_jax.data import augment, normalize
from ecg_jax.data.records import Records
from ecg_jax.data.resident import Batch
from ecg_jax.data.stream import Stream
from ecg_jax.errors import NoFigureError, UserError
from ecg_jax.evaluation.figures import metrics
from ecg_jax.evaluation.protocols import linear_probe
from ecg_jax.evaluation.protocols.features import mixed
from ecg_jax.run.experiment import Experiment
from ecg_jax.runtime import hosts, parallel
from ecg_jax.runtime.waiting import waiting
from ecg_jax.training import optim

WARMUP = 0.1  # of the updates

Tree = Any


class Epoch(NamedTuple):
    """`loss` is the mean of its updates', `auroc` the macro AUROC on validation at its end."""

    learning_rate: float
    epoch: int
    loss: float
    auroc: float


class Tuned(NamedTuple):
    """A fine-tuned encoder with its head.

    Attributes:
      params, state: of the experiment's method.
      kernel: float32 [D, K].
      bias: float32 [K]; NaN for a class that all or none of the training records have.
      best: the epoch whose weights these are.
      path: every epoch of every learning rate.
    """

    params: Tree
    state: Tree
    kernel: np.ndarray
    bias: np.ndarray
    best: Epoch
    path: tuple[Epoch, ...]

    @property
    def note(self) -> str:
        """What was chosen on validation, in words."""
        best = self.best
        return (
            f"learning rate {best.learning_rate:g}, epoch {best.epoch}, "
            f"validation macro AUROC {best.auroc:.3f}"
        )


class _State(NamedTuple):
    """Trained `params`, a dict of encoder and head, the method's state, and AdamW's moments."""

    params: dict[str, Tree]
    method: Tree
    moments: optax.OptState


class Finetuner:
    """Trains encoders of one experiment on labels. Its step is compiled once for each number of
    classes, whatever the number of records."""

    def __init__(self, experiment: Experiment, protocol: str):
        """`protocol`, "finetune" or "supervised", names the options, `config.evaluate[protocol]`:
        a start that has learned wants a lower learning rate than a random one, and a head that
        does not begin by pulling it apart."""
        self._experiment, self._protocol = experiment, protocol
        self._config = c = experiment.config.evaluate[protocol]
        self._augment = augment.compose(c.augment, experiment.config.rate)
        self._optimizer = optax.chain(
            optax.clip_by_global_norm(c.clip) if c.clip else optax.identity(),
            optax.scale_by_adam(),
            optax.add_decayed_weights(c.weight_decay, mask=optim.matrices),
        )
        self._copies = parallel.replicated(experiment.mesh)
        self._moments = jax.jit(self._optimizer.init, out_shardings=self._copies)
        self._update = jax.jit(self._updated, out_shardings=self._copies)

    def fit(
        self,
        params: Tree,
        state: Tree,
        train: Records,
        validation: Records,
        task: str,
        *,
        seed: int,
    ) -> Tuned:
        """Trains from `params` and `state`, of the experiment's method, on all records of `train`.

        Args:
          seed: of the batches and augmentations; the same one gives the same weights.

        Raises:
          UserError: no such task; a loss that is not finite.
          NoFigureError: no class to learn or to choose by.
        """
        y, y_validation = (_labels(split, task) for split in (train, validation))
        fitted = mixed(y)
        if not (fitted & mixed(y_validation)).any():
            raise NoFigureError(
                f"no class of {task} has positives and negatives among both the {len(y)} training "
                f"and the {len(y_validation)} validation records: nothing to learn or to choose by"
            )
        stream, total = self._batches(train, y, seed)
        weight = parallel.put((fitted / fitted.sum()).astype(np.float32), self._copies)
        start = self._start(params, state, self._head(params, state, train, validation, task))
        best, path = None, []
        for peak in self._config.learning_rates:
            batches = stream.batches(0, total)
            rates = schedule(peak, total)
            epochs = self._epochs(start, batches, weight, rates, seed)
            what = f"{self._protocol}, {task}, learning rate {peak:g}"
            for epoch, now, loss in counted(epochs, total, self._config.epochs, what):
                if not np.isfinite(loss):
                    where = f"{self._protocol}, {task}: epoch {epoch} at learning rate {peak:g}"
                    raise UserError(
                        f"{where}: the loss is {loss}: set "
                        f"config.evaluate.{self._protocol}.learning_rates lower"
                    )
                tuned = _tuned(now, fitted)
                score = predict(self._experiment, tuned, validation)
                auroc = float(metrics.macro(metrics.auroc(y_validation, score)))
                path.append(Epoch(peak, epoch, loss, hosts.from_first(auroc)))
                if best is None or path[-1].auroc > best.best.auroc:
                    best = tuned._replace(best=path[-1])
        assert best is not None
        return best._replace(path=tuple(path))

    def _batches(self, train: Records, y: np.ndarray, seed: int) -> tuple[Stream, int]:
        """The batches of the training records, their labels in the place of their rows, and
        the number of updates."""
        c, shards = self._config, self._experiment.config.shards
        devices = self._experiment.mesh.devices.size
        shards = devices if shards % devices else shards  # the run's may have been others
        size = -(-c.batch_size // shards) * shards
        # Few records are repeated, so that they fill batches and hardly any waits for its turn.
        steps = -(-c.min_updates // c.epochs)
        copies = -(-steps * size // len(train))
        rows = np.tile(np.arange(len(train)), copies)
        records = train if copies == 1 else train.take(rows)
        stream = Stream(
            self._experiment.mesh,
            records.ecg,
            records.lead_mask,
            y[rows].astype(np.float32),
            shards=shards,
            batch_size=size,
            seed=seed,
        )
        return stream, min(c.epochs * stream.steps, c.max_updates)

    def _head(
        self, params: Tree, state: Tree, train: Records, validation: Records, task: str
    ) -> dict[str, np.ndarray]:
        """Where the head starts: at each class's log-odds, or at the linear probe's solution
        (LP-FT, Kumar et al. 2022, arXiv 2202.10054)."""
        y, encode = train.labels[task], self._experiment.encode
        fitted = mixed(y)
        if self._config.head == "probe":
            x, x_validation = (encode(params, state, s).features for s in (train, validation))
            probe = linear_probe.fit(x, y, x_validation, validation.labels[task])
            kernel = probe.kernel / probe.scale[:, None]
            bias = probe.bias - probe.mean @ kernel
        else:
            width = encode(params, state, train.take([0])).features.shape[1]
            kernel = np.zeros((width, y.shape[1]))
            prevalence = np.where(fitted, y.mean(axis=0), 0.5)
            bias = np.log(prevalence / (1 - prevalence))
        bias = np.where(fitted, bias, 0)
        return {"kernel": kernel.astype(np.float32), "bias": bias.astype(np.float32)}

    def _start(self, params: Tree, state: Tree, head: dict[str, np.ndarray]) -> _State:
        on_mesh = {name: parallel.put(array, self._copies) for name, array in head.items()}
        trained = {"encoder": jax.device_put(params, self._copies), "head": on_mesh}
        return _State(trained, jax.device_put(state, self._copies), self._moments(trained))

    def _epochs(
        self,
        now: _State,
        batches: Iterator[Batch],
        weight: jax.Array,
        rates: np.ndarray,
        seed: int,
    ) -> Iterator[tuple[int, _State, float]]:
        """Yields (epoch from 1, state at its end, mean loss of its updates)."""
        total, epochs = len(rates), self._config.epochs
        ends = {-(-total * epoch // epochs) for epoch in range(1, epochs + 1)}
        losses, epoch = [], 0
        for step, (batch, rate) in enumerate(zip(batches, rates, strict=True)):
            now, loss = self._update(now, batch, weight, rate, seed, step)
            losses.append(loss)
            if step + 1 in ends:
                epoch += 1
                yield epoch, now, float(np.mean(jax.device_get(losses)))
                losses = []

    def _loss(
        self,
        params: dict[str, Tree],
        state: Tree,
        batch: Batch,
        weight: jax.Array,
        key: jax.Array,
    ) -> tuple[jax.Array, Tree]:
        x = normalize.normalize(batch.ecg, batch.lead_mask, self._experiment.config.normalize)
        x, mask = self._augment(key, x, batch.lead_mask)
        features, state = self._experiment.method.train_encode(params["encoder"], state, x, mask)
        logits = features @ params["head"]["kernel"] + params["head"]["bias"]
        loss = optax.sigmoid_binary_cross_entropy(logits, batch.row)
        return jnp.sum(loss.mean(axis=0) * weight), state

    def _updated(
        self,
        now: _State,
        batch: Batch,
        weight: jax.Array,
        rate: jax.Array,
        seed: jax.Array,
        step: jax.Array,
    ) -> tuple[_State, jax.Array]:
        """One update at learning rate `rate`; `weight` [K] is that of each class in the loss."""
        key = jax.random.fold_in(jax.random.key(seed), step)
        grad = jax.value_and_grad(self._loss, has_aux=True)
        with parallel.mesh_of(batch.ecg):
            (loss, method), gradient = grad(now.params, now.method, batch, weight, key)
        updates: Any  # a tree as params is
        updates, moments = self._optimizer.update(gradient, now.moments, now.params)
        rates = {"encoder": rate, "head": rate * self._config.head_rate}
        params = {
            name: jax.tree.map(lambda p, u, r=r: p - r * u, now.params[name], updates[name])
            for name, r in rates.items()
        }
        return _State(params, method, moments), loss


def counted(
    epochs: Iterator[tuple[int, _State, float]], total: int, last: int, what: str
) -> Iterator[tuple[int, _State, float]]:
    """The epochs, while it is shown how many of `total` updates are made."""
    with waiting(total, what, "updates") as wait:
        for epoch, now, loss in epochs:
            wait.reached(-(-total * epoch // last))
            yield epoch, now, loss


def predict(experiment: Experiment, tuned: Tuned, split: Records) -> np.ndarray:
    """Logits float32 [N, K] of a split's records; NaN for a class that was not trained."""
    features = experiment.encode(tuned.params, tuned.state, split).features
    return features @ tuned.kernel + tuned.bias


def schedule(peak: float, total: int) -> np.ndarray:
    """float32 [total]: a linear warm-up to `peak`, then a cosine that would reach zero next."""
    warm = max(round(WARMUP * total), 1)
    step = np.arange(total)
    ramp = np.minimum((step + 1) / warm, 1)
    done = np.clip((step - warm) / max(total - warm, 1), 0, 1)
    return (peak * ramp * (1 + np.cos(np.pi * done)) / 2).astype(np.float32)


def _tuned(now: _State, fitted: np.ndarray) -> Tuned:
    head = jax.device_get(now.params["head"])
    bias = np.where(fitted, head["bias"], np.float32(np.nan))
    none = Epoch(0.0, 0, np.nan, np.nan)
    return Tuned(now.params["encoder"], now.method, head["kernel"], bias, none, ())


def _labels(split: Records, task: str) -> np.ndarray:
    if task not in split.labels:
        raise UserError(f"{split.dataset} has no task {task!r}: it has {', '.join(split.labels)}")
    return split.labels[task]
