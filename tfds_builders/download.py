"""Downloads of PhysioNet projects, file by file, each checked against SHA256SUMS.txt."""

import dataclasses
import http.client
import urllib.parse
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from tfds_builders.errors import SourceError
from tfds_builders.files import parse_sha256, sha256_of
from tfds_builders.progress import progress

_CONNECTIONS = 8
_TIMEOUT = 60  # seconds
_ATTEMPTS = 3


@dataclasses.dataclass(frozen=True)
class Published:
    """A project as published, and which of its files a builder reads."""

    title: str
    homepage: str
    files: str  # address below which the files of SHA256SUMS.txt lie
    wanted: Callable[[str], object]  # true for a path to download


def fetch(published: Published, folder: Path) -> Path:
    """Downloads what is not yet in `folder`; returns it. Raises SourceError."""
    sums_address = published.files + "SHA256SUMS.txt"
    sums = _get(sums_address)
    digests = {
        name: digest
        for name, digest in parse_sha256(_text(sums, sums_address), sums_address).items()
        if published.wanted(name)
    }
    for name in digests:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise SourceError(f"{sums_address}: names a file outside its folder: {name!r}")
    missing = [name for name, digest in digests.items() if not _has(folder / name, digest)]

    def download(name: str) -> None:
        _download(published.files + urllib.parse.quote(name), folder / name, digests[name])

    title = f"download {published.title}"
    with ThreadPoolExecutor(_CONNECTIONS) as pool, progress(len(missing), title, "files") as bar:
        tasks = pool.map(download, missing)
        try:
            for _ in tasks:
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "SHA256SUMS.txt").write_bytes(sums)
    return folder


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{where}: not text in UTF-8 ({error})") from None


def _has(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_of(path) == digest


def _download(address: str, path: Path, digest: str) -> None:
    """Writes the file under its name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    for _ in range(_ATTEMPTS):
        partial.write_bytes(_get(address))
        if sha256_of(partial) == digest:
            partial.rename(path)
            return
    partial.unlink()
    raise SourceError(f"{address}: does not agree with SHA256SUMS.txt")


def _get(address: str) -> bytes:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with urllib.request.urlopen(address, timeout=_TIMEOUT) as response:
                return response.read()
        except (OSError, http.client.HTTPException) as error:
            if attempt == _ATTEMPTS:
                raise SourceError(
                    f"{address}: {error} (a folder that you have can be given with --source)"
                ) from error
    raise AssertionError
