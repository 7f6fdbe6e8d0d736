"""A run's best checkpoint as a folder that others can load.

    python -m ecg_jax.export --workdir DIR --out FOLDER [--to onnx|torch]

`model.safetensors` holds the arrays, `config.json` what they are for and where they come from,
`README.md` is the model card, `FIGURES.md` all its figures. Of a run that was evaluated,
`heads.safetensors` holds how classes are scored and judged: probes, prompts' embeddings, and in
config.json thresholds and calibration; `bank.safetensors` the training reports' embeddings and
counts, no text. `ecg_jax.load` reads the folder back. With `--to`, DIR may be an export, and FOLDER
holds the encoder alone, for others: `ecg_encoder.onnx`, or `ecg_encoder.py` and its weights.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from ecg_jax.errors import UserError, run_main
from ecg_jax.evaluation import heads as heads_lib
from ecg_jax.evaluation.figures import results
from ecg_jax.evaluation.protocols import report_bank
from ecg_jax.inference import card as card_lib
from ecg_jax.inference import elsewhere, hub
from ecg_jax.inference.exported import (
    BANK,
    CARD,
    HEADS,
    Exported,
    load_exported,
    of,
    of_run,
)
from ecg_jax.run import workdir
from ecg_jax.run.exported import CONFIG, WEIGHTS, sealed, sha256_of
from ecg_jax.runtime import process, storage
from ecg_jax.runtime.files import write_whole

__all__ = ["Exported", "export", "load_exported"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m ecg_jax.export")
    parser.add_argument("--workdir", required=True, help="the run's folder")
    parser.add_argument("--out", required=True, help="a folder that is not there yet")
    parser.add_argument("--push", help="OWNER/NAME of the Hugging Face hub: --out is uploaded, too")
    parser.add_argument("--to", choices=elsewhere.KINDS, help="the encoder for another framework")
    args = parser.parse_args()
    process.configure()
    if args.to:
        convert(storage.path(args.workdir), storage.path(args.out), args.to)
        print(f"written: {args.out}")
        return
    export(storage.path(args.workdir), storage.path(args.out))
    print(f"written: {args.out}")
    if args.push:
        hub.push(Path(args.out), args.push)
        print(f"uploaded: hf:{args.push}")


def export(folder: Path, out: Path) -> None:
    """Writes the best checkpoint of the run in `folder` to `out`, whole or not at all.

    Raises:
      UserError: `out` is not empty or cannot be written, or the run has no best checkpoint.
    """
    out = _empty(out)
    parts = of_run(folder)
    step = parts.description["provenance"]["step"]
    rows = [row for row in results.read(folder / "results.json") if row.get("step") == step]
    if parts.heads is None:
        print(
            f"{folder} has no heads of this checkpoint: the export can't classify "
            "(python -m ecg_jax.evaluate writes them)"
        )

    def described(files: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        description = {**parts.description, **files}
        if parts.heads:
            description["figures"] = card_lib.by_class(rows, parts.heads)
        return description, {
            CARD: card_lib.card(description, parts.arrays, rows, parts.heads),
            card_lib.FIGURES: card_lib.figures(rows, parts.heads),
        }

    write(out, parts.arrays, described, parts.bank, parts.heads)


def write(
    out: Path,
    arrays: dict[str, np.ndarray],
    described: Callable[[dict[str, Any]], tuple[dict[str, Any], dict[str, str]]],
    bank: report_bank.Bank | None = None,
    heads: heads_lib.Heads | None = None,
) -> None:
    """A folder of a model, whole or not at all; `described(files)` gives config.json, which tells
    the files' digests and the heads as `files` does, and texts by name.

    Raises:
      UserError: it cannot be written.
    """
    with _whole(out, last=CONFIG) as part:  # without it there is no model
        _write_arrays(part / WEIGHTS, arrays)
        files: dict[str, Any] = {"weights_sha256": sha256_of(part / WEIGHTS)}
        if bank is not None:
            _write_arrays(part / BANK, bank._asdict())
            files["bank_sha256"] = sha256_of(part / BANK)
        if heads is not None:
            files["heads"], held = heads_lib.described(heads)
            _write_arrays(part / HEADS, held)
            files["heads_sha256"] = sha256_of(part / HEADS)
        description, texts = described(files)
        workdir.write_json(part / CONFIG, sealed(description))
        for name, text in texts.items():
            (part / name).write_text(text, encoding="utf-8")


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    write_whole(path, save(arrays, metadata={"format": "ecg_jax"}))


def _empty(out: Path) -> Path:
    """The folder by its full name. Raises a UserError if there is something in it."""
    if not storage.remote(out):
        out = out.resolve()
    if storage.exists(out) and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder: choose another --out")
    return out


@contextlib.contextmanager
def _whole(out: Path, last: str) -> Iterator[Path]:
    """A folder to write into, which becomes `out` at the end; `last` is the file of it that comes
    last, where it cannot be moved whole: into a bucket, or a folder that is there, which may be a
    link or the current one.

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
            yield part
            if beside and not out.exists():
                part.rename(out)
                return
            for path in sorted(part.iterdir(), key=lambda path: (path.name == last, path.name)):
                write_whole(out / path.name, path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from error


def convert(folder: Path, out: Path, to: str) -> None:
    """Writes the encoder of a run or an export for another framework, once its plain form gives
    the model's own output.

    Raises:
      UserError: `out` is not empty or cannot be written, the encoder is no single ResNet, or a
        package is missing.
    """
    out = _empty(out)
    parts = of(folder)
    network = elsewhere.checked(parts)
    files = {"onnx": "ecg_encoder.onnx", "torch": "ecg_encoder.py"}
    with _whole(out, last=files[to]) as part:
        if to == "onnx":
            elsewhere.write_onnx(network, parts.description, part / files[to])
        else:
            elsewhere.write_torch(network, parts.description, part)


if __name__ == "__main__":
    run_main(main)
