"""Builds one dataset: `python -m tfds_builders.prepare NAME --data_dir DIR [--source DIR]`.

Does what `tfds build` does, without TensorFlow, on the same builder folders. Exit status: 0 built
or already there, 1 records that can't be used (each is listed; nothing is built without
--skip_bad), 2 wrong arguments or an unusable source folder.
"""

import argparse
import contextlib
import importlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging

from tfds_builders.build import RATE_CONFIGS, BadRecordsError
from tfds_builders.records import SourceError

NAMES = ("ptb_xl", "cpsc2018", "mit_bih", "simulated")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    tfds.disable_progress_bar()  # TFDS shows a bar per shard; the builders show one for all
    logging.set_verbosity(logging.ERROR)
    try:
        builder = _builder(args)
        if builder.is_prepared():
            print(f"{args.name} is already prepared in {builder.data_path}")
            return 0
        with _sigterm_as_exit():
            _build(builder, args)
    except BadRecordsError as error:
        hint = "" if args.skip_bad else " (--skip_bad goes on without them)"
        print(f"{args.name}: {error}\nnothing was built{hint}", file=sys.stderr)
        return 1
    except (SourceError, OSError, RuntimeError) as error:
        if not _is_for_the_user(error):
            raise
        print(f"{args.name}: {error}", file=sys.stderr)
        return 2
    _report(builder)
    return 0


def _is_for_the_user(error: Exception) -> bool:
    """Not a bug: array_record says "write() failed" where, for one, the disk is full."""
    return isinstance(error, SourceError | OSError) or "write() failed" in str(error)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    rates = [config.rate for config in RATE_CONFIGS]
    parser = _Parser(prog="python -m tfds_builders.prepare", description="Builds one dataset.")
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--data_dir", type=Path, required=True, help="where prepared data go")
    parser.add_argument("--source", type=Path, help="published folder; default: download it")
    parser.add_argument("--rate", type=int, choices=rates, default=rates[0], help="Hz")
    parser.add_argument(
        "--signals",
        choices=("published", "resampled"),
        help="at 100 Hz (ptb_xl only): the published files, or made from those of 500 Hz; "
        "default: resampled, but published where the folder has no records500",
    )
    parser.add_argument("--skip_bad", action="store_true", help="go on without unusable records")
    parser.add_argument("--records", type=int, help="how many to simulate (simulated only)")
    args = parser.parse_args(argv)
    if args.name == "simulated" and (args.source or args.skip_bad):
        parser.error("simulated has no source: --source and --skip_bad do not apply")
    if args.name != "simulated" and args.records is not None:
        parser.error("--records applies to simulated only")
    if args.signals and (args.name != "ptb_xl" or args.rate != 100):
        parser.error("--signals applies to ptb_xl with --rate 100 only: all else has one source")
    if args.records is not None and args.records < 1:
        parser.error(f"--records {args.records}: at least 1")
    if args.source and not (args.source.is_dir() and any(args.source.iterdir())):
        parser.error(f"--source {args.source}: no such folder, or it is empty")
    return args


def _builder(args: argparse.Namespace) -> tfds.core.DatasetBuilder:
    module = importlib.import_module(f"tfds_builders.{args.name}.{args.name}_dataset_builder")
    builder = module.Builder(
        config=f"rate{args.rate}", data_dir=args.data_dir, file_format="array_record"
    )
    if args.skip_bad:
        builder.skip_bad = True
    if args.signals:
        builder.signals = args.signals
    if args.records is not None:
        builder.num_records = args.records
    return builder


@contextlib.contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """So that what is half written is removed on SIGTERM too."""
    previous = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _build(builder: tfds.core.DatasetBuilder, args: argparse.Namespace) -> None:
    """Builds; on failure leaves the data folder as it was, but for what was downloaded."""
    existed = args.data_dir.exists()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            builder.download_and_prepare(
                # TFDS makes its download folders even where nothing is downloaded.
                download_dir=scratch if args.source else args.data_dir / "downloads",
                download_config=tfds.download.DownloadConfig(
                    manual_dir=args.source, try_download_gcs=False
                ),
            )
        except BaseException:
            _remove_traces(builder, args.data_dir if not existed else None)
            raise


def _remove_traces(builder: tfds.core.DatasetBuilder, made: Path | None) -> None:
    """Folders that TFDS made around the incomplete one, which it removes itself."""
    downloads = Path(builder.data_dir).parents[2] / "downloads"
    _remove_if_empty(downloads / "extracted")
    _remove_if_empty(downloads)
    rate_dir = Path(builder.data_dir).parent
    _remove_if_empty(rate_dir)
    if rate_dir.parent.is_dir() and [p.name for p in rate_dir.parent.iterdir()] == [".config"]:
        shutil.rmtree(rate_dir.parent)
    if made is not None:
        _remove_if_empty(made)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _report(builder: tfds.core.DatasetBuilder) -> None:
    sizes = ", ".join(f"{name} {info.num_examples}" for name, info in builder.info.splits.items())
    print(f"{builder.name}: {sizes} examples in {builder.data_path}")
    if bad := builder.info.metadata.get("bad_records"):
        print(f"without {len(bad)} bad records, see {builder.data_path / 'bad_records.json'}")


if __name__ == "__main__":
    sys.exit(main())
