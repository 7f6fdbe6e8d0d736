"""Downloads of PhysioNet projects, file by file, each checked against SHA256SUMS.txt."""

import dataclasses
import hashlib
import urllib.parse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from tfds_builders.errors import SourceError
from tfds_builders.files import SUMS, parse_sha256, sha256_of
from tfds_builders.progress import progress

if TYPE_CHECKING:
    import requests

_CONNECTIONS = 8
_TIMEOUT = 60  # seconds
_ATTEMPTS = 3
_BEGUN = ".begun"  # the digest of SHA256SUMS.txt, until all files are there


@dataclasses.dataclass(frozen=True)
class Published:
    """A project as published, and which of its files a builder reads."""

    title: str
    homepage: str
    files: str  # address below which the files of SHA256SUMS.txt lie
    wanted: Callable[[str], object]  # true for a path to download
    sums_sha256: str = ""  # of SHA256SUMS.txt itself; where it is not known, as first fetched


def fetch(published: Published, folder: Path) -> Path:
    """Downloads what is not yet in `folder`; returns it. Raises SourceError.

    A download goes on with the SHA256SUMS.txt that it began with.
    """
    import requests  # where nothing is downloaded, it is not waited for

    with requests.Session() as session:  # its connections stay open, up to ten of them
        return _fetch(published, folder, session)


def _fetch(published: Published, folder: Path, session: "requests.Session") -> Path:
    sums_address = published.files + SUMS
    sums = _get(session, sums_address)
    _check_sums(sums, sums_address, published.sums_sha256, folder)
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
        address = published.files + urllib.parse.quote(name)
        _download(session, address, folder / name, digests[name])

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
    (folder / SUMS).write_bytes(sums)
    (folder / _BEGUN).unlink(missing_ok=True)
    return folder


def _check_sums(sums: bytes, address: str, expected: str, folder: Path) -> None:
    """Raises SourceError where SHA256SUMS.txt is not the published one, or not that of the files
    that are there. Until all are, its digest is kept in `folder`."""
    digest, begun, whole = hashlib.sha256(sums).hexdigest(), folder / _BEGUN, folder / SUMS
    if expected and digest != expected:
        raise SourceError(
            f"{address}: SHA-256 {digest[:12]}..., published is {expected[:12]}...: it is of "
            "another version, or was changed on its way"
        )
    before = (
        begun.read_text(encoding="ascii")
        if begun.is_file()
        else sha256_of(whole)
        if whole.is_file()
        else ""
    )
    if before and before != digest:
        raise SourceError(
            f"{address}: SHA-256 {digest[:12]}..., and the download in {folder} began with "
            f"{before[:12]}...: remove that folder to begin anew"
        )
    folder.mkdir(parents=True, exist_ok=True)
    begun.write_text(digest, encoding="ascii")


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{where}: not text in UTF-8 ({error})") from None


def _has(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_of(path) == digest


def _download(session: "requests.Session", address: str, path: Path, digest: str) -> None:
    """Writes the file under its name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    for _ in range(_ATTEMPTS):
        partial.write_bytes(_get(session, address))
        if sha256_of(partial) == digest:
            partial.rename(path)
            return
    partial.unlink()
    raise SourceError(f"{address}: does not agree with SHA256SUMS.txt")


def _get(session: "requests.Session", address: str) -> bytes:
    import requests

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with session.get(address, timeout=_TIMEOUT) as response:
                response.raise_for_status()
                return response.content
        except requests.RequestException as error:
            if attempt == _ATTEMPTS:
                raise SourceError(
                    f"{address}: {error} (a folder that you have can be given with --source)"
                ) from error
    raise AssertionError
