"""Builds one dataset: `python -m tfds_builders.prepare NAME --data_dir DIR [--source DIR]`.

Does what `tfds build` does, without TensorFlow, on the same builder folders. Exit status: 0 built
or already there, 1 records that can't be used (each is listed; nothing is built without
--skip_bad), 2 wrong arguments or an unusable source folder.
"""

import argparse
import contextlib
import copy
import importlib
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from tfds_builders import on_beam, remote
from tfds_builders.archive import is_archive
from tfds_builders.build import RATE_CONFIGS, BadRecordsError
from tfds_builders.errors import SourceError
from tfds_builders.program import nameless_owners, run_program

_AGAIN = "--overwrite prepares it again, another --data_dir keeps both"
NAMES = ("ptb_xl", "cpsc2018", "cinc2021", "mit_bih", "ludb", "mimic_iv_ecg", "simulated", "own")
_OF_OWN = ("table", "columns", "dataset", "seed", "least", "file_rate", "file_units", "file_leads")
ARCHIVES = ("mimic_iv_ecg",)  # of which the published zip will do for --source


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: list[str] | None = None) -> int:
    args = _parse(argv)
    nameless_owners()
    local = os.environ.get("ECG_JAX_LOCAL")  # what is copied from and to a store lies there
    try:
        if local:
            Path(local).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="ecg_jax.", dir=local) as scratch:
            return _prepare(args, Path(scratch))
    except OSError as error:
        print(f"{args.name}: {error}", file=sys.stderr)
        return 2


def _prepare(args: argparse.Namespace, scratch: Path) -> int:
    tfds.disable_progress_bar()  # TFDS shows a bar per shard; the builders show one for all
    logging.set_verbosity(logging.ERROR)
    builder = None
    try:
        if args.source and not isinstance(args.source, str):  # an archive is read where it lies
            args.source = remote.fetch(args.source, scratch / "source")
        builder = _builder(args, args.data_dir)
        if builder.is_prepared() and not args.overwrite:
            _check_same(builder, args)
            print(
                f"{builder.name} is already prepared in {builder.data_path} "
                "(--overwrite prepares it again)"
            )
            return 0
        with _sigterm_as_exit():
            if remote.remote(args.data_dir) and args.beam is None:
                _build_here(builder, args, scratch / "data")
            else:
                (_replace if builder.is_prepared() else _build)(builder, args)
    except BadRecordsError as error:
        hint = "" if args.skip_bad else " (--skip_bad goes on without them)"
        print(f"{args.name}: {error}\nnothing was built{hint}", file=sys.stderr)
        return 1
    except (SourceError, OSError, RuntimeError) as error:
        if builder is not None and _made_meanwhile(args, error):
            print(f"{args.name} was prepared meanwhile, in {builder.data_path}")
            return 0
        if not _is_for_the_user(error):
            raise
        print(f"{args.name}: {error}", file=sys.stderr)
        return 2
    _report(_builder(args, args.data_dir))
    return 0


def _check_same(builder: tfds.core.DatasetBuilder, args: argparse.Namespace) -> None:
    """Raises SourceError where other options or files than these made what is prepared, or where
    some of it is gone."""
    shards = [
        epath.Path(path) for split in builder.info.splits.values() for path in split.filepaths
    ]
    if gone := [path.name for path in shards if not path.is_file()]:
        raise SourceError(f"{builder.data_path}: {gone[0]} is missing: --overwrite prepares again")
    metadata = builder.info.metadata or {}
    wanted = {"limb_leads": args.limb_leads and args.limb_leads.replace("_", " ")}
    wanted["signals"] = args.signals
    for key, value in wanted.items():
        if value and metadata.get(key) != value:
            raise SourceError(
                f"{builder.data_path} was prepared with {key} {metadata.get(key)}, not {value}: "
                f"{_AGAIN}"
            )
    made_of = metadata.get("source_sha256")
    if args.source and made_of and builder.fingerprint(args.source) != made_of:
        raise SourceError(
            f"{builder.data_path} was prepared from other files than {args.source} holds now: "
            f"{_AGAIN}"
        )


def _made_meanwhile(args: argparse.Namespace, error: Exception) -> bool:
    """Another process has prepared the same from the same files, and was quicker."""
    if isinstance(error, SourceError) or args.overwrite:
        return False
    there = _builder(args, args.data_dir)
    if not there.is_prepared():
        return False
    _check_same(there, args)
    return True


def _is_for_the_user(error: Exception) -> bool:
    """Not a bug: array_record says "write() failed" where, for one, the disk is full."""
    return isinstance(error, SourceError | OSError) or "write() failed" in str(error)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    rates = [config.rate for config in RATE_CONFIGS]
    parser = _Parser(prog="python -m tfds_builders.prepare", description="Builds one dataset.")
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument(
        "--data_dir", required=True, help="where prepared data go (or gs://, s3://)"
    )
    parser.add_argument(
        "--source",
        help=f"published folder (or gs://, s3://), or zip ({', '.join(ARCHIVES)}); "
        "default: download it",
    )
    parser.add_argument("--rate", type=int, choices=rates, default=rates[0], help="Hz")
    parser.add_argument(
        "--signals",
        choices=("published", "resampled"),
        help="at 100 Hz (ptb_xl only): the published files, or made from those of 500 Hz; "
        "default: resampled, but published where the folder has no records500",
    )
    parser.add_argument(
        "--limb_leads",
        choices=("checked", "as_given"),
        help="as_given takes leads I to aVF that contradict Einthoven's law (default: checked)",
    )
    parser.add_argument(
        "--databases",
        help="of cinc2021, comma-separated (default: all but ptb and st_petersburg_incart)",
    )
    parser.add_argument(
        "--beam",
        metavar="OPTIONS",
        help='Apache Beam\'s options, such as "--runner=DataflowRunner ...": its workers write the '
        "shards; they need to see --source and --data_dir as this machine does",
    )
    parser.add_argument("--overwrite", action="store_true", help="prepare again what is there")
    parser.add_argument("--skip_bad", action="store_true", help="go on without unusable records")
    parser.add_argument("--records", type=int, help="how many to simulate (simulated only)")
    own = parser.add_argument_group("own: recordings of your own, see docs/own-data.md")
    own.add_argument("--table", type=Path, help="a CSV file with a line for each recording")
    own.add_argument("--columns", help="id=COLUMN,path=COLUMN[,report=A|B][,labels=A|B][,...]")
    own.add_argument("--dataset", help="what the dataset is called (default own)")
    own.add_argument("--seed", type=int, help="of splits that are drawn (default 0)")
    own.add_argument("--least", type=int, help="recordings a label must have (default 1)")
    own.add_argument("--file_rate", type=float, help="Hz of CSV and NPY files")
    own.add_argument("--file_units", help='of CSV and NPY files: mV, uV, or a step: "4.88 uV"')
    own.add_argument("--file_leads", help="of the columns of CSV and NPY files: I,II,V1")
    args = parser.parse_args(_joined(sys.argv[1:] if argv is None else argv))
    _check_own(parser, args)
    if args.name == "simulated" and (args.source or args.skip_bad or args.limb_leads):
        parser.error("simulated has no source: --source, --skip_bad and --limb_leads do not apply")
    if args.name != "simulated" and args.records is not None:
        parser.error("--records applies to simulated only")
    if args.signals and (args.name != "ptb_xl" or args.rate != 100):
        parser.error("--signals applies to ptb_xl with --rate 100 only: all else has one source")
    if args.databases is not None:
        if args.name != "cinc2021":
            parser.error("--databases applies to cinc2021 only")
        from tfds_builders.cinc2021.read import DATABASES

        args.databases = tuple(args.databases.split(","))
        if unknown := [name for name in args.databases if name not in DATABASES]:
            parser.error(f"--databases: no {unknown[0]!r}: there are {', '.join(DATABASES)}")
    if args.beam is not None and args.name in ("simulated", "own"):
        parser.error(f"{args.name} is made by one process: --beam does not apply")
    if "://" in args.data_dir and args.beam is not None and args.overwrite:
        parser.error(f"--data_dir {args.data_dir}: with --beam without --overwrite only")
    if args.records is not None and args.records < 1:
        parser.error(f"--records {args.records}: at least 1")
    try:
        args.data_dir = remote.path(args.data_dir)
        if args.name in ARCHIVES and args.source and is_archive(args.source):
            args.source = args.source if "://" in args.source else Path(args.source)
            return args
        args.source = args.source and remote.path(args.source)
        if args.source and not (args.source.is_dir() and any(args.source.iterdir())):
            parser.error(f"--source {args.source}: no such folder, or it is empty")
    except SourceError as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"--source {args.source}: {error.strerror}")
    return args


def _joined(argv: Sequence[str]) -> list[str]:
    """With --beam and its options as one word: argparse takes what begins with -- for its own."""
    words = list(argv)
    if "--beam" in words[:-1]:
        at = words.index("--beam")
        words[at : at + 2] = [f"--beam={words[at + 1]}"]
    return words


def _check_own(parser: _Parser, args: argparse.Namespace) -> None:
    """Ends where an option of own data is missing, or given for other data."""
    if args.name != "own":
        if given := [name for name in _OF_OWN if getattr(args, name) is not None]:
            parser.error(f"--{given[0]} applies to own only")
        return
    for name in ("source", "table", "columns"):
        if getattr(args, name) is None:
            parser.error(f"own needs --{name}: see docs/own-data.md")
    args.dataset = args.dataset or "own"
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,60}", args.dataset):
        parser.error(f"--dataset {args.dataset}: small letters, digits and _, such as my_ward")
    if args.dataset in NAMES and args.dataset != "own":
        parser.error(f"--dataset {args.dataset}: is another dataset's name, choose your own")
    if args.least is not None and args.least < 1:
        parser.error(f"--least {args.least}: at least 1")


def _class_of(args: argparse.Namespace) -> type[tfds.core.DatasetBuilder]:
    module = importlib.import_module(f"tfds_builders.{args.name}.{args.name}_dataset_builder")
    if args.name != "own":
        return module.Builder
    leads = [name.strip() for name in args.file_leads.split(",")] if args.file_leads else None
    return module.of(
        module.Own(
            name=args.dataset,
            table=args.table,
            columns=args.columns,
            seed=args.seed or 0,
            least=args.least or 1,
            stated=module.formats.Stated(args.file_rate, args.file_units, leads),
        )
    )


def _builder(args: argparse.Namespace, data_dir: Path) -> tfds.core.DatasetBuilder:
    builder = _class_of(args)(
        config=f"rate{args.rate}", data_dir=data_dir, file_format="array_record"
    )
    if args.source:
        builder.source = args.source
    if args.skip_bad:
        builder.skip_bad = True
    if args.beam is not None:
        builder.beam = on_beam.options(args.beam)
    if args.limb_leads:
        builder.limb_leads = args.limb_leads == "checked"
    if args.databases:
        builder.databases = args.databases
    if args.signals:
        builder.signals = args.signals
    if args.records is not None and not (args.overwrite and builder.is_prepared()):
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
    # In place of what TFDS says, which speaks of downloads of unknown size.
    builder._log_download_bytes = lambda: print(f"preparing {builder.data_path}", flush=True)
    builder._log_download_done = lambda: None
    existed = args.data_dir.exists()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            builder.download_and_prepare(
                # TFDS makes its download folders even where nothing is downloaded.
                download_dir=scratch if args.source else args.data_dir / "downloads",
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
        except BaseException:
            _remove_traces(builder, args.data_dir if not existed else None)
            raise


def _build_here(there: tfds.core.DatasetBuilder, args: argparse.Namespace, data_dir: Path) -> None:
    """Builds in a folder of this machine what is then copied into a store."""
    args = copy.copy(args)
    args.data_dir = data_dir
    made = _builder(args, data_dir)
    _build(made, args)
    remote.put(Path(made.data_path), there.data_path)


def _replace(there: tfds.core.DatasetBuilder, args: argparse.Namespace) -> None:
    """Builds beside what is prepared, which gives way only when the new one is whole."""
    with tempfile.TemporaryDirectory(prefix=".prepare-", dir=args.data_dir) as scratch:
        made = _builder(args, Path(scratch))
        _build(made, args)
        old = Path(scratch) / "old"
        there.data_path.rename(old)
        made.data_path.rename(there.data_path)


def _remove_traces(builder: tfds.core.DatasetBuilder, made: Path | None) -> None:
    """Folders that TFDS made around the incomplete one, which it removes itself."""
    downloads = builder.data_path.parents[2] / "downloads"
    _remove_if_empty(downloads / "extracted")
    _remove_if_empty(downloads)
    rate_dir = builder.data_path.parent
    _remove_if_empty(rate_dir)
    if rate_dir.parent.is_dir() and [p.name for p in rate_dir.parent.iterdir()] == [".config"]:
        rate_dir.parent.rmtree()
    if made is not None:
        _remove_if_empty(made)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _report(builder: tfds.core.DatasetBuilder) -> None:
    sizes = ", ".join(f"{name} {info.num_examples}" for name, info in builder.info.splits.items())
    print(f"{builder.name}: {sizes} examples in {builder.data_path}")
    metadata = builder.info.metadata
    for note in metadata.get("notes", ()):
        print(note)
    if verified := metadata.get("files_verified"):
        print(f"{verified} files agree with SHA256SUMS.txt")
    elif builder.name != "simulated":
        print(
            "no SHA256SUMS.txt there: only the sums that recordings hold of themselves are checked"
        )
    if dead := metadata.get("dead_leads"):
        some = ", ".join(f"{key} {' '.join(leads)}" for key, leads in list(dead.items())[:5])
        more = ", ..." if len(dead) > 5 else ""
        print(f"{len(dead)} with leads that never change, masked: {some}{more}")
    if bad := metadata.get("bad_records"):
        print(f"without {len(bad)} bad records, see {builder.data_path / 'bad_records.json'}")


if __name__ == "__main__":
    run_program(main)
