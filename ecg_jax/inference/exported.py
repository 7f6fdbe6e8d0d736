"""A model as files, and read back: of an export or of a run's best checkpoint.

`model.safetensors` holds the arrays, `config.json` what they are for and where they come from;
`heads.safetensors`, of a run that was evaluated, how classes are scored and judged;
`bank.safetensors` the training reports' embeddings and counts, no text.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from ecg_jax import Config
from ecg_jax.data import normalize
from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError
from ecg_jax.evaluation import heads as heads_lib
from ecg_jax.evaluation.heads import Heads
from ecg_jax.evaluation.protocols import report_bank
from ecg_jax.methods import Encoded, build, lasting
from ecg_jax.run import config as config_lib
from ecg_jax.run import workdir
from ecg_jax.run.experiment import Summary, blank, summary
from ecg_jax.run.exported import (
    CONFIG,
    WEIGHTS,
    check_agreement,
    check_input,
    check_seal,
    check_shapes,
    flatten,
    read_arrays,
)
from ecg_jax.runtime import cache, parallel, storage
from ecg_jax.runtime.checkpoint import Checkpoints

FORMAT = 2
FORMATS = (1, 2)  # that are read; the first has no digest of what config.json says
CARD, BANK, HEADS = "README.md", "bank.safetensors", "heads.safetensors"
PROVENANCE = ("ecg_jax", "commit", "python", "packages", "device", "splits")
MOST_WIDE = 65_536  # of a text model's embeddings


class Exported(NamedTuple):
    """A model read back; the functions are jitted.

    Attributes:
      config: config.json.
      variables: {"params": tree, "method": tree} of float32 arrays.
      encode: (ecg int16 [B, T, 12] microvolts, lead_mask bool [B, 12]) -> Encoded. Raises a
        UserError for arrays that are not that.
      encode_text: the text tower's embeddings float32 [B, F] -> unit vectors [B, E]; or None.
      bank: the training reports in the joint space, for `report_bank.read`; or None.
      summarise: as `encode` -> Summary, what the heads are given.
      heads: how classes are scored and judged; or None, of a run that was not evaluated.
    """

    config: dict[str, Any]
    variables: dict[str, Any]
    encode: Callable[[Any, Any], Encoded]
    encode_text: Callable[[Any], jax.Array] | None
    bank: report_bank.Bank | None = None
    summarise: Callable[[Any, Any], Summary] | None = None
    heads: Heads | None = None


class Parts(NamedTuple):
    """What a model is made of: config.json, arrays by name ("params/encoder/..."), heads, bank."""

    description: dict[str, Any]
    arrays: dict[str, np.ndarray]
    heads: Heads | None
    bank: report_bank.Bank | None


def load_exported(folder: Path | str) -> Exported:
    """Reads an exported folder. Raises a UserError as `of_export`."""
    return assembled(of_export(folder))


def of(folder: Path) -> Parts:
    """Of an export, or of a run's best checkpoint. Raises a UserError as `of_export`, `of_run`."""
    return of_run(folder) if storage.exists(folder / "checkpoints") else of_export(folder)


def of_export(folder: Path | str) -> Parts:
    """Reads an exported folder.

    Raises:
      UserError: a file is missing or damaged, or the arrays are not exactly the model's.
    """
    folder = storage.local_copy(storage.path(folder), cache.local("exported"))
    try:
        description = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if description["format"] not in FORMATS:
            raise UserError(
                f"{folder} has format {description['format']}, this program reads {FORMAT}"
            )
        check_seal(folder, description)
        config, width = (
            config_lib.from_json(description["config"]),
            description["text_tower"]["width"],
        )
        if not isinstance(width, int) or not 0 <= width <= MOST_WIDE:
            raise TypeError(f"text_tower.width is {width!r}")
        sha256, step = description["weights_sha256"], description["provenance"]["step"]
        config_lib.check(config)
        check_agreement(folder, description, config)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} holds no exported model: it has no {CONFIG}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{folder / CONFIG} is damaged ({error}): export it again") from None
    arrays = read_arrays(folder / WEIGHTS, sha256)
    check_shapes(folder / WEIGHTS, arrays, _shapes(config, width))
    bank = heads = None
    if "bank_sha256" in description:
        held = read_arrays(folder / BANK, description["bank_sha256"])
        if set(held) != set(report_bank.Bank._fields):
            raise UserError(f"{folder / BANK} does not fit {CONFIG}: {', '.join(sorted(held))}")
        bank = report_bank.Bank(**held)
    if "heads" in description:
        try:
            held = read_arrays(folder / HEADS, description["heads_sha256"])
            heads = heads_lib.restored(description["heads"], held)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{folder / CONFIG} is damaged ({error}): export it again") from None
    else:  # imported weights are judged by `evaluate` where they lie
        held = heads_lib.read(folder / heads_lib.FILE)
        heads = held if held and held.step == step else None
    return Parts(description, arrays, heads, bank)


def of_run(folder: Path) -> Parts:
    """A run's best checkpoint.

    Raises:
      UserError: the folder holds no run, or it has no best checkpoint that is whole.
    """
    config, saved = workdir.read(folder)
    width = saved["text_tower"]["width"]
    like = _shapes(config, width, parallel.replicated(parallel.make_mesh()))
    best = folder / "checkpoints" / "best"
    restored = Checkpoints(best, keep=1).restore(like) if storage.exists(best) else None
    if restored is None:
        raise UserError(f"{folder} has no best checkpoint yet: train it with its own command")
    step, tree, _ = restored
    bank = report_bank.load(folder / report_bank.FILE)
    heads = heads_lib.read(folder / heads_lib.FILE)
    return Parts(
        described(config, saved, step),
        flatten(jax.device_get(tree)),
        heads if heads and heads.step == step else None,
        bank[0] if bank and bank[1] == step else None,
    )


def described(config: Config, saved: Mapping[str, Any], step: int) -> dict[str, Any]:
    """What config.json says, but for the files' sha256."""
    text = {name: config.text[name] for name in ("language", "template") if "text" in config}
    return {
        "format": FORMAT,
        "method": config.method,
        "model": config_lib.to_json(config.model),
        "input": {
            "leads": list(LEADS),
            "trained_leads": list(saved.get("leads", LEADS)),
            "rate_hz": config.rate,
            "seconds": config.seconds,
            "units": "uV",
            "normalize": config.normalize,
        },
        "text_tower": {**saved["text_tower"], **text},
        "provenance": {
            **{name: saved.get(name) for name in PROVENANCE},
            "dataset": config.dataset,
            "step": step,
        },
        "config": config_lib.to_json(config),
    }


def assembled(parts: Parts) -> Exported:
    """The model's functions."""
    description = parts.description
    config = config_lib.from_json(description["config"])
    variables = traverse_util.unflatten_dict(jax.device_put(parts.arrays), sep="/")
    variables = {"params": variables["params"], "method": variables.get("method", {})}
    method = build(config)
    samples = round(config.seconds * config.rate)

    def encode(ecg: jax.Array, lead_mask: jax.Array) -> Encoded:
        x = normalize.normalize(ecg, lead_mask, config.normalize)
        return method.encode(variables["params"], variables["method"], x, lead_mask)

    def checked(function: Callable) -> Callable:
        jitted = jax.jit(function)

        def call(ecg: Any, lead_mask: Any) -> Any:
            check_input(ecg, lead_mask, samples)
            return jitted(ecg, lead_mask)

        return call

    text = method.encode_text
    return Exported(
        description,
        variables,
        checked(encode),
        jax.jit(lambda x: text(variables["params"], x)) if text else None,
        parts.bank,
        checked(lambda ecg, lead_mask: summary(encode(ecg, lead_mask))),
        parts.heads,
    )


def started(params: Any, state: Any, parts: Parts) -> tuple[Any, Any, list[str]]:
    """Parameters and state of a new training that start from a model's: its encoder, and what else
    has the same name and shape. The third are the parts that start anew.

    Raises:
      UserError: the encoder is another network.
    """
    new = flatten({"params": params, "method": state})
    fitting = {k for k, x in parts.arrays.items() if k in new and new[k].shape == x.shape}
    encoder = {k for k in new if k.startswith(("params/encoder/", "method/batch_stats/"))}
    theirs = {k for k in parts.arrays if k.startswith("params/encoder/")}
    if wrong := sorted((encoder | theirs) - fitting):
        raise UserError(
            f"its encoder is another network than the config's: {', '.join(wrong[:4])} differ: "
            "give config.model what it had"
        )
    merged = {
        k: jax.device_put(parts.arrays[k].astype(x.dtype), x.sharding) if k in fitting else x
        for k, x in new.items()
    }
    anew = sorted({"/".join(k.split("/")[:2]) for k in new.keys() - fitting})
    tree = traverse_util.unflatten_dict(merged, sep="/")
    return tree["params"], tree.get("method", state), anew


def _shapes(config: Config, width: int, sharding: Any = None) -> dict[str, Any]:
    """The variables' shapes, as a checkpoint for evaluation holds them."""
    view = blank(round(config.seconds * config.rate), width)
    params, state = jax.eval_shape(build(config).init, jax.random.key(0), view)
    tree = {"params": params, "method": lasting(state)}
    if sharding is None:
        return tree
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
