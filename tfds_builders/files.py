"""What lies in a source folder: all files, their digests, and a fingerprint of them."""

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfds_builders.errors import RecordError, SourceError
from tfds_builders.table import read_text

SUMS = "SHA256SUMS.txt"


def walk(folder: Path, below: str = "", *, deep: bool = True) -> list[str]:
    """Paths, relative to `folder`, of all files below its folder `below`, sorted.

    Links to folders are followed. What macOS leaves behind (`._NAME`, `__MACOSX`) is no file.
    Raises SourceError for a folder that can't be read.
    """
    return sorted(iterate(folder, below, deep=deep))


def iterate(folder: Path, below: str = "", *, deep: bool = True) -> Iterator[str]:
    """`walk` in the order in which the files are found."""
    return _walk(folder / below, f"{below}/" if below else "", deep, frozenset())


def _walk(
    folder: Path, prefix: str, deep: bool, above: frozenset[tuple[int, int]]
) -> Iterator[str]:
    try:
        here = folder.stat()
        if (here.st_dev, here.st_ino) in above:
            return  # a link to a folder above
        above |= {(here.st_dev, here.st_ino)}
        entries = [(entry.name, entry.is_dir()) for entry in os.scandir(folder)]
    except OSError as error:
        raise SourceError(f"{error.filename}: can't be read ({error.strerror})") from None
    for name, is_folder in entries:
        if name.startswith("._") or name == "__MACOSX":
            continue
        if not is_folder:
            yield prefix + name
        elif deep:
            yield from _walk(folder / name, f"{prefix}{name}/", deep, above)


def with_suffix(files: Iterable[str], suffixes: Collection[str]) -> list[str]:
    """Those whose suffix is among `suffixes`, in capitals or not."""
    return [file for file in files if "." + file.rpartition(".")[2].casefold() in suffixes]


def stem_of(file: str) -> str:
    """The path without its suffix, which all of a record's files share."""
    return file.rpartition(".")[0]


def fingerprint(folder: Path, files: Sequence[str]) -> str:
    """sha256 over the paths and contents of the files that a dataset is made of.

    Signals that a header describes are not read: the header holds their checksums.
    """
    described = {stem_of(file) for file in files if file.endswith(".hea")}
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(file) + b"\0")
        if not (file.endswith((".dat", ".mat")) and stem_of(file) in described):
            digest.update(_content(f"{folder}/{file}"))
    return digest.hexdigest()


def _content(path: str) -> bytes:
    """The sha256 of a file. Reading the record says what is wrong with one that can't be read."""
    try:
        return _digest(path).digest()
    except OSError as error:
        return str(error.errno).encode()


def _digest(path: str | Path) -> Any:
    """Four times as fast as with a file object, and there may be 20,000 of them."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        digest = hashlib.sha256()
        while part := os.read(file, 1 << 20):
            digest.update(part)
        return digest
    finally:
        os.close(file)


def load_sha256(folder: Path) -> dict[str, str]:
    """`SHA256SUMS.txt` of a folder as {relative path: hex digest}; empty where there is none."""
    path = folder / SUMS
    return parse_sha256(read_text(path, "digests"), path) if path.is_file() else {}


def parse_sha256(text: str, where: Path | str) -> dict[str, str]:
    """{path: digest in hex}; raises SourceError."""
    digests: dict[str, str] = {}
    for path, digest in _sums(text.splitlines(), where):
        if digests.setdefault(path, digest) != digest:
            raise SourceError(f"{where}: two digests of {path[:80]}")
    return digests


@contextlib.contextmanager
def sum_lines(path: Path) -> Iterator[Iterator[tuple[str, str]]]:
    """(path, digest in hex) of a file as `SHA256SUMS.txt`, line by line; nothing where there is no
    such file. Raises SourceError."""
    if not path.is_file():
        yield iter(())
        return
    try:
        with path.open("rb") as file, io.TextIOWrapper(file, "utf-8-sig") as text:
            yield _sums(text, path)
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not text in UTF-8 ({error})") from None
    except RecordError as error:  # an archive's
        raise SourceError(str(error)) from None


def _sums(lines: Iterable[str], where: Path | str) -> Iterator[tuple[str, str]]:
    for line in filter(None, map(str.strip, lines)):
        match = re.fullmatch(r"([0-9a-fA-F]{64})\s+\*?(?:\./)?(.+)", line)
        if match is None:
            raise SourceError(f"{where}: not a SHA-256 line: {line[:80]!r}")
        yield match[2], match[1].lower()


def digests_of(sums: Mapping[str, str], stem: str, suffixes: Sequence[str]) -> dict[str, str]:
    """{file name: digest} of one record's files, `stem` being its path in the folder."""
    paths = (stem + suffix for suffix in suffixes)
    return {path.rpartition("/")[2]: sums[path] for path in paths if path in sums}


def verify_sha256(path: Path, expected: str) -> None:
    """Raises RecordError where the file is missing or differs."""
    try:
        actual = sha256_of(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise RecordError(f"{path}: no such file{capitals(path)}") from None
    check_sha256(path, actual, expected)


def check_sha256(path: Path, actual: str, expected: str) -> None:
    """Raises RecordError where a file's digest is not that of `SHA256SUMS.txt`."""
    if actual != expected:
        raise RecordError(f"{path}: SHA-256 {actual[:12]}..., {SUMS} says {expected[:12]}...")


def sha256_of(path: Path) -> str:
    if isinstance(path, Path):
        return _digest(path).hexdigest()
    with path.open("rb") as file:  # of an archive
        return hashlib.file_digest(file, "sha256").hexdigest()


def capitals(path: Path) -> str:
    """Says where a missing file is there but for its extension's case."""
    other = path.with_suffix(path.suffix.upper())
    return f" (rename {other.name}, which is there)" if other.is_file() else ""
