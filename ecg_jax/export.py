"""A run's best checkpoint as a folder that others can load.

    python -m ecg_jax.export --workdir DIR --out FOLDER

`model.safetensors` holds the arrays, `config.json` what they are for and where they come from,
`README.md` is the model card; `bank.safetensors`, of a run that was evaluated through the training
reports, holds their embeddings and counts, no text. `load_exported` reads the folder back.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from safetensors.numpy import save

from ecg_jax import Config, evaluate
from ecg_jax.data import normalize
from ecg_jax.data.leads import LEADS
from ecg_jax.errors import UserError, run_main
from ecg_jax.evaluation.figures import results, tables
from ecg_jax.evaluation.protocols import report_bank
from ecg_jax.methods import Encoded, build
from ecg_jax.run import config as config_lib
from ecg_jax.run import workdir
from ecg_jax.run.experiment import NO_TOWER, blank
from ecg_jax.run.exported import (
    CONFIG,
    WEIGHTS,
    check_agreement,
    check_input,
    check_seal,
    check_shapes,
    flatten,
    read_arrays,
    sealed,
    sha256_of,
)
from ecg_jax.runtime import cache, parallel, process, storage
from ecg_jax.runtime.checkpoint import Checkpoints
from ecg_jax.runtime.files import write_whole

FORMAT = 2
FORMATS = (1, 2)  # that are read; the first has no digest of what config.json says
CARD = "README.md"
BANK = "bank.safetensors"
MOST_WIDE = 65_536  # of a text model's embeddings
PROVENANCE = ("ecg_jax", "commit", "python", "packages", "device", "splits")


class Exported(NamedTuple):
    """A model read back; both functions are jitted.

    Attributes:
      config: config.json.
      variables: {"params": tree, "method": tree} of float32 arrays.
      encode: (ecg int16 [B, T, 12] microvolts, lead_mask bool [B, 12]) -> Encoded.
      encode_text: the text tower's embeddings float32 [B, F] -> unit vectors [B, E]; or None.
      bank: the training reports in the joint space, for `report_bank.read`; or None.
    """

    config: dict[str, Any]
    variables: dict[str, Any]
    encode: Callable[[jax.Array, jax.Array], Encoded]
    encode_text: Callable[[jax.Array], jax.Array] | None
    bank: report_bank.Bank | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m ecg_jax.export")
    parser.add_argument("--workdir", required=True, help="the run's folder")
    parser.add_argument("--out", required=True, help="a folder that is not there yet")
    args = parser.parse_args()
    process.configure()
    export(storage.path(args.workdir), storage.path(args.out))
    print(f"written: {args.out}")


def export(folder: Path, out: Path) -> None:
    """Writes the best checkpoint of the run in `folder` to `out`, whole or not at all.

    Raises:
      UserError: `out` is not empty or cannot be written, or the run has no best checkpoint.
    """
    if not storage.remote(out):
        out = out.resolve()
    if storage.exists(out) and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder: choose another --out")
    config, saved = workdir.read(folder)
    width = saved["text_tower"]["width"]
    like = _shapes(config, width, parallel.replicated(parallel.make_mesh()))
    if not storage.exists(folder / "checkpoints" / "best"):
        raise UserError(f"{folder} has no best checkpoint yet: train it with its own command")
    restored = Checkpoints(folder / "checkpoints" / "best", keep=1).restore(like)
    if restored is None:
        raise UserError(f"{folder} has no best checkpoint yet: train it with its own command")
    step, tree, _ = restored
    arrays = flatten(jax.device_get(tree))
    held = report_bank.load(folder / evaluate.BANK)
    bank = held[0] if held and held[1] == step else None

    def described(digests: dict[str, str]) -> tuple[dict[str, Any], str]:
        description = describe(config, saved, step, digests)
        return description, card(description, arrays, folder)

    write(out, arrays, described, bank)


def write(
    out: Path,
    arrays: dict[str, np.ndarray],
    described: Callable[[dict[str, str]], tuple[dict[str, Any], str]],
    bank: report_bank.Bank | None = None,
) -> None:
    """A folder of a model, whole or not at all; `described(digests)` gives what config.json says of
    files of these digests, and the card.

    Raises:
      UserError: it cannot be written.
    """
    beside = None if storage.remote(out) else out.parent
    try:
        if beside:
            beside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=beside, prefix=f".{out.name}.") as scratch:
            part = Path(scratch) / "model"
            part.mkdir()
            write_whole(part / WEIGHTS, save(arrays, metadata={"format": "ecg_jax"}))
            digests = {"weights_sha256": sha256_of(part / WEIGHTS)}
            if bank is not None:
                write_whole(part / BANK, save(bank._asdict(), metadata={"format": "ecg_jax"}))
                digests["bank_sha256"] = sha256_of(part / BANK)
            description, text = described(digests)
            workdir.write_json(part / CONFIG, sealed(description))
            (part / CARD).write_text(text, encoding="utf-8")
            if beside and not out.exists():
                part.rename(out)
                return
                return
            # Into a bucket, or a folder that is there, which may be a link or the current one.
            # config.json comes last: without it there is no model.
            names = [name for name in (WEIGHTS, BANK, CARD, CONFIG) if (part / name).exists()]
            for name in names:
                write_whole(out / name, (part / name).read_bytes())
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error


def describe(
    config: Config, saved: dict[str, Any], step: int, digests: dict[str, str]
) -> dict[str, Any]:
    """What config.json says."""
    text = {name: config.text[name] for name in ("language", "template") if "text" in config}
    return {
        "format": FORMAT,
        "method": config.method,
        "model": config_lib.to_json(config.model),
        "input": {
            "leads": list(LEADS),
            "rate_hz": config.rate,
            "seconds": config.seconds,
            "units": "uV",
            "normalize": config.normalize,
        },
        "text_tower": {**saved["text_tower"], **text},
        **digests,
        "provenance": {
            **{name: saved.get(name) for name in PROVENANCE},
            "dataset": config.dataset,
            "step": step,
        },
        "config": config_lib.to_json(config),
    }


def card(description: dict[str, Any], arrays: dict[str, np.ndarray], folder: Path) -> str:
    """The model card; its figures are those of this checkpoint in the run's results.json."""
    given, tower, run = (description[name] for name in ("input", "text_tower", "provenance"))
    count = sum(array.size for name, array in arrays.items() if name.startswith("params/"))
    rows = results.read(folder / "results.json")
    rows = [row for row in rows if row.get("step") == run["step"]]
    table = tables.table(rows) if rows else "Not evaluated."
    stand_in = (
        f"\n**The text tower is a stand-in: {tower['note']}.** Figures with a clinical language "
        "model will differ.\n"
        if tower["stand_in"]
        else ""
    )
    return f"""# {description["method"]} on {run["dataset"]}

An ECG encoder of {count:,} parameters, trained with ecg_jax {run["ecg_jax"]} ({run["commit"]}),
step {run["step"]:,}. Research software: not a medical device, not for diagnosis.
{stand_in}
## Input

int16 microvolts [batch, {round(given["seconds"] * given["rate_hz"])}, {len(given["leads"])}] at \
{given["rate_hz"]} Hz, leads {", ".join(given["leads"])}; a lead that is missing is zero and false
in the mask. `encode` normalises ({given["normalize"]}).

    from ecg_jax.export import load_exported
    model = load_exported("FOLDER")
    encoded = model.encode(ecg, lead_mask)  # .features, .embedding and .map, over time

{_text(tower)}

{_bank(description)}## Results

```
{table}
```
"""


def _bank(description: dict[str, Any]) -> str:
    if "bank_sha256" not in description:
        return ""
    return """## Through the training reports

`model.bank` holds the training reports' embeddings and counts, and those of their sentences, no
text. `ecg_jax.evaluation.protocols.report_bank.read` weighs them by an ECG's likeness.

"""


def _text(tower: dict[str, Any]) -> str:
    if tower["name"] == NO_TOWER["name"]:
        return "Trained without text."
    return f"""Text: {tower["note"]} (sha256 {tower["sha256"]}), pooling {tower["pooling"]},
reports in {tower["language"]}, template `{tower["template"]}`."""


def load_exported(folder: Path | str) -> Exported:
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
        sha256 = description["weights_sha256"]
        config_lib.check(config)
        check_agreement(folder, description, config)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} holds no exported model: it has no {CONFIG}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{folder / CONFIG} is damaged ({error}): export it again") from None
    arrays = read_arrays(folder / WEIGHTS, sha256)
    check_shapes(folder / WEIGHTS, arrays, _shapes(config, width))
    variables = traverse_util.unflatten_dict(jax.device_put(arrays), sep="/")
    variables = {"params": variables["params"], "method": variables.get("method", {})}
    method = build(config)

    T = round(config.seconds * config.rate)

    @jax.jit
    def run(ecg: jax.Array, lead_mask: jax.Array) -> Encoded:
        x = normalize.normalize(ecg, lead_mask, config.normalize)
        return method.encode(variables["params"], variables["method"], x, lead_mask)

    def encode(ecg: jax.Array, lead_mask: jax.Array) -> Encoded:
        check_input(ecg, lead_mask, T)
        return run(ecg, lead_mask)

    text = method.encode_text
    encode_text = jax.jit(lambda x: text(variables["params"], x)) if text else None
    bank = None
    if "bank_sha256" in description:
        held = read_arrays(folder / BANK, description["bank_sha256"])
        if set(held) != set(report_bank.Bank._fields):
            raise UserError(f"{folder / BANK} does not fit {CONFIG}: {', '.join(sorted(held))}")
        bank = report_bank.Bank(**held)
    return Exported(description, variables, encode, encode_text, bank)


def _shapes(config: Config, width: int, sharding: Any = None) -> dict[str, Any]:
    """The variables' shapes, as a checkpoint for evaluation holds them."""
    view = blank(round(config.seconds * config.rate), width)
    shapes = jax.eval_shape(build(config).init, jax.random.key(0), view)
    tree = evaluate.frozen(*shapes)
    if sharding is None:
        return tree
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


if __name__ == "__main__":
    run_main(main)
