"""What a config names, opened: mesh, method, text tower and records. Training and
evaluation begin here."""

import copy
import dataclasses
import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ecg_jax import Config
from ecg_jax.data import normalize, records
from ecg_jax.data.records import Records
from ecg_jax.errors import UserError
from ecg_jax.methods import Encoded, Method, View, build
from ecg_jax.run import config as config_lib
from ecg_jax.runtime import hosts, parallel, storage
from ecg_jax.runtime.waiting import waiting
from ecg_jax.text import reports, tower
from ecg_jax.text.tower import TextTower

NO_TOWER = {"name": "none", "note": "none", "width": 0, "parameters": 0, "stand_in": False}
SHARDS = 32  # the default of config.shards


class Summary(NamedTuple):
    """What is kept of records: features float32 [N, D] and embedding [N, E] as in `Encoded`, and
    what else the maps have been pooled to: the last one's standard deviation and maximum over time,
    float32 [N, D] each, and the earlier ones' mean, deviation and maximum [N, D']."""

    features: Any
    embedding: Any
    pools: tuple[Any, ...] = ()


def summary(encoded: Encoded) -> Summary:
    pools = []
    for maps in (encoded.map, *encoded.earlier):
        maps = maps.astype(jax.numpy.float32)
        pools += [maps.mean(axis=1), maps.std(axis=1), maps.max(axis=1)]
    return Summary(encoded.features, encoded.embedding, tuple(pools[1:]))  # features are the first


def feature_map(encoded: Encoded) -> jax.Array:
    """The map [B, P, D], in half precision: a tenth of a megabyte is a lot for a record."""
    return encoded.map.astype(jax.numpy.float16)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A config and what it names; splits are read when first asked for."""

    config: Config
    mesh: Mesh
    method: Method
    tower: TextTower | None  # None for a method without a text side

    @functools.cached_property
    def train(self) -> Records:
        # Several hosts each read what their devices hold, and that is known once it is dealt.
        return self._split("train", stored=self.config.stream or jax.process_count() > 1)

    @functools.cached_property
    def validation(self) -> Records:
        return self._split("validation")

    @functools.cached_property
    def test(self) -> Records:
        return self._split("test")

    def _split(self, split: str, stored: bool = False) -> Records:
        c = self.config
        read = functools.partial(records.load, c.data_dir, c.dataset, c.rate, split)
        if stored:
            return read(seconds=c.seconds, stored=True)
        loaded = hosts.together(lambda: read(seconds=c.seconds))
        if jax.process_count() > 1:
            records.check_hosts({f"{split} sha256": loaded.fingerprint()})
        return loaded

    def otherwise(self, config: Config, method: Method) -> "Experiment":
        """The same records and text tower, under another config and method."""
        other = dataclasses.replace(self, config=config, method=method)
        for split in ("train", "validation", "test"):
            other.__dict__[split] = getattr(self, split)
        return other

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        """Random parameters and state of the method, replicated over the mesh."""
        T = round(self.config.seconds * self.config.rate)

        def start(key: jax.Array) -> tuple[Any, Any]:
            return self.method.init(key, blank(T, self.tower.width if self.tower else 0))

        return jax.jit(start, out_shardings=parallel.replicated(self.mesh))(key)

    def described_tower(self) -> dict[str, Any]:
        """The text tower's provenance; of none, that there is none."""
        return self.tower.describe() if self.tower else NO_TOWER

    def encode(
        self, params: Any, state: Any, split: Records, keep: Callable[[Encoded], Any] = summary
    ) -> Any:
        """What `keep` makes of the features, embeddings and maps of all records of a split, as
        NumPy arrays. A batch's are fetched while the devices compute the next one's."""
        devices = self.mesh.devices.size
        size = -(-self.config.evaluate.batch_size // devices) * devices
        sharding = parallel.by_record(self.mesh)
        outputs, pending = [], None
        with waiting(len(split), f"encoding {split.dataset}, {split.split}") as wait:
            for start in range(0, len(split), size):
                rows = np.minimum(np.arange(start, start + size), len(split) - 1)
                ecg = parallel.put_rows(split.ecg, rows, sharding)
                mask = parallel.put_rows(split.lead_mask, rows, sharding)
                computed = self._encode(keep)(params, state, ecg, mask)
                if pending is not None:
                    outputs.append(jax.device_get(pending))
                    wait.reached(start)
                pending = computed
        outputs.append(jax.device_get(pending))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(split)], *outputs)

    @functools.cached_property
    def _encode(self):
        @functools.cache
        def of(keep: Callable[[Encoded], Any]):
            def run(params: Any, state: Any, ecg: jax.Array, mask: jax.Array) -> Any:
                x = normalize.normalize(ecg, mask, self.config.normalize)
                return keep(self.method.encode(params, state, x, mask))

            return jax.jit(run, out_shardings=parallel.replicated(self.mesh))

        return of


def blank(T: int, width: int) -> View:
    """One record of zeros: what a method's `init` needs of the shapes."""
    zeros = functools.partial(jax.numpy.zeros, dtype=jax.numpy.float32)
    none = jax.numpy.zeros(1, jax.numpy.int32)
    leads = jax.numpy.ones((1, 12), bool)
    return View(zeros((1, T, 12)), leads, zeros((1, width)), none, none, none)


def open_experiment(config: Config, *, trains: bool = True) -> Experiment:
    """Checks a config against what is there, and opens it.

    Args:
      trains: whether updates will be made, so that the batch must divide over the devices; and
        simulated records are prepared, where the config asks for it.

    Raises:
      UserError: see `checked`, `records.load` and `tower.load`.
    """
    mesh = parallel.make_mesh()
    method = checked(config, mesh.devices.size if trains else 1, parallel.platform(mesh))
    if trains and config.build and config.dataset == "simulated":
        hosts.first_alone(lambda: _simulate(config))
    records.folder(config.data_dir, config.dataset, config.rate)
    return Experiment(config, mesh, method, _tower(config) if method.encode_text else None)


def checked(config: Config, devices: int, platform: str) -> Method:
    """The method of a config that is sound on so many devices of a platform, whatever the data.

    Raises:
      UserError: a value that no run can have, or a batch that does not divide; see
        `methods.build`.
    """
    config_lib.check(config)
    normalize.check(config.normalize)
    method = build(config, platform)
    steps = {
        step["name"]
        for of in (config, config.evaluate.finetune, config.evaluate.supervised)
        for step in (*of.augment, *of.get("augment_second", ()))
    }
    if "vcg" in steps and config.normalize == "lead":
        raise UserError(
            "--config.normalize=lead gives every lead a unit of its own, and the augmentation vcg "
            "needs one for all: choose millivolt or record"
        )
    if method.encode_text and "text" not in config:
        raise UserError(
            f"{config.method} learns from reports, and a config without `text` names no text "
            f"tower: use configs/{config.method}.py"
        )
    chunk = config.batch_size // config.accumulate
    if chunk % devices:
        raise UserError(
            f"{chunk} records at a time (batch_size / accumulate) do not divide over "
            f"{devices} devices: set --config.batch_size to a multiple of "
            f"{config.accumulate * devices}"
        )
    if config.parallel.batch_norm == "device" and chunk < 2 * devices:
        raise UserError(
            f"--config.parallel.batch_norm=device: {chunk} records at a time are one for each of "
            f"{devices} devices, and statistics need two or more"
        )
    return method


def with_shards(config: Config, devices: int, saved: int | None = None) -> Config:
    """The config with as many virtual shards as there are devices, where the default number does
    not divide over them, and then the next larger batch that these divide; or with the shards of a
    run that goes on. Says so in one line.

    Args:
      saved: the run's virtual shards; None for a new one.
    """
    if config.shards != SHARDS:
        return config
    shards = saved or (SHARDS if SHARDS % devices == 0 else devices)
    if shards == config.shards:
        return config
    why = "as this run has had" if saved else f"as {SHARDS} do not divide over {devices} devices"
    line = f"{shards} virtual shards, {why}: the batches are not those of {SHARDS}"
    config = copy.deepcopy(config)
    config.shards = shards
    part = config.accumulate * shards
    if config.batch_size % part:
        batch = -(-config.batch_size // part) * part
        line += f", and of {batch} records in place of {config.batch_size}"
        config.batch_size = batch
    print(line)
    return config


def _tower(config: Config) -> TextTower:
    text = config.text
    return tower.load(
        text.tower,
        cased={"auto": None, "true": True, "false": False}[str(text.cased).lower()],
        pooling=None if text.pooling == "auto" else text.pooling,
    )


def _simulate(config: Config) -> None:
    try:
        records.folder(config.data_dir, config.dataset, config.rate)
    except UserError:
        from tfds_builders import prepare

        where = storage.path(config.data_dir)
        with tempfile.TemporaryDirectory(prefix="ecg_jax.") as beside:
            to = beside if storage.remote(where) else config.data_dir
            if prepare.main(["simulated", "--rate", str(config.rate), "--data_dir", to]):
                raise UserError(
                    f"no simulated records could be written to {config.data_dir}"
                ) from None
            if storage.remote(where):
                storage.copy_tree(Path(beside), where)


def report_texts(
    config: Config, split: Records, language: str | None = None
) -> tuple[list[str], np.ndarray]:
    """The distinct report texts of a split, and per record int32 [N] the row of its own.

    A record whose report is empty, or has nothing but boilerplate, has row -1.

    Args:
      language: `config.text.language` if not given; of a run that learns from both, English.

    Raises:
      UserError: such records, and `config.text.empty` is "error".
    """
    own = str(language or config.text.language)
    own = "english" if own == "both" else own
    rendered = [reports.render(r, language=own) for r in split.report]
    empty = [i for i, text in enumerate(rendered) if not text]
    if len(empty) == len(rendered):
        raise UserError(
            f"{split.dataset} has no reports: a method that learns from text cannot use it"
        )
    if empty and config.text.empty != "drop":
        raise UserError(
            f"{split.dataset} {split.split}: {len(empty)} records have an empty report "
            f"({', '.join(split.record_id[empty[:3]])}{', ...' if len(empty) > 3 else ''}): "
            "go on without these pairs with --config.text.empty=drop"
        )
    texts = sorted({text for text in rendered if text})
    row = {text: i for i, text in enumerate(texts)}
    return texts, np.array([row.get(text, -1) for text in rendered], np.int32)
