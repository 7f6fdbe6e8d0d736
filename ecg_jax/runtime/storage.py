"""Where runs, data and caches lie: folders of this machine, or of an object store.

`path("gs://bucket/run")` and `path("runs/a")` have the methods of `pathlib.Path` that this library
uses: etils' epath over fsspec, as TFDS has it. An object is written whole, and nothing can be
appended to it or renamed; what needs a local file is written beside (`Beside`) and copied up.
"""

import contextlib
import functools
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ecg_jax.errors import UserError

os.environ.setdefault("EPATH_USE_TF", "false")  # an installed TensorFlow changes nothing

PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}
PROBE = "ecg_jax-is-this-bucket-there"  # asked for once, to know that a store answers
THREADS = 16  # files that are copied at a time


def path(text: str | os.PathLike) -> Path:
    """A local path, or the same of an object store (which is no `pathlib.Path`; see `remote`).

    Raises:
      UserError: a scheme that is not supported, a package that is missing, a store that cannot be
        reached.
    """
    text = os.fspath(text)
    scheme, found, rest = text.partition("://")
    if not found:
        if re.match(r"(gs|s3):", text):
            raise UserError(f"{text}: write it {text[:3]}//BUCKET/FOLDER")
        return expanded(text)
    if scheme not in PACKAGES:
        raise UserError(
            f"{text}: {scheme}:// is not supported: name a local folder, gs:// or s3://"
        )
    if not rest.strip("/"):
        raise UserError(f"{text}: write it {scheme}://BUCKET/FOLDER")
    _reach(scheme, rest.partition("/")[0])
    from etils import epath

    return epath.Path(text)  # type: ignore[return-value]


def expanded(text: str | os.PathLike) -> Path:
    """A local path, whose `~` a shell may have left as it is: in `--config.data_dir=~/data`.

    Raises:
      UserError: no such user, or one without a home folder.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{os.fspath(text)}: {error}") from None


@functools.cache
def _reach(scheme: str, bucket: str) -> None:
    import fsspec

    try:
        fsspec.get_filesystem_class("gcs" if scheme == "gs" else scheme)
    except ImportError:
        raise UserError(
            f"{scheme}://{bucket} needs the package {PACKAGES[scheme]}: "
            f"pip install {PACKAGES[scheme]}"
        ) from None
    from etils import epath

    exists(epath.Path(f"{scheme}://{bucket}/{PROBE}"))  # type: ignore[arg-type]


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; of a store that cannot be asked, fsspec says
    no, and this raises a UserError."""
    if not remote(path):
        return path.exists()
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except Exception as error:  # the store's, the credentials' or the network's
        raise unreachable(path, error) from error
    return True


def remote(path: Path) -> bool:
    return not isinstance(path, Path)


def unreachable(where: Any, error: Exception) -> UserError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return UserError(
        f"{where} cannot be read or written ({reason}): check the bucket, its permissions and "
        "this machine's credentials"
    )


@contextlib.contextmanager
def reached(where: Path) -> Iterator[None]:
    """What a store raises, which is of many kinds, becomes a UserError; not what local files raise,
    nor that there is no such object."""
    try:
        yield
    except (UserError, FileNotFoundError):
        raise
    except Exception as error:
        if not remote(where):
            raise
        raise unreachable(where, error) from error


def remove(folder: Path) -> None:
    """A folder with all that is in it, if it is there."""
    if remote(folder):
        folder.rmtree(missing_ok=True)  # type: ignore[attr-defined]
    else:
        shutil.rmtree(folder, ignore_errors=True)


def files(folder: Path) -> list[Path]:
    """All files below a folder; none where it is not there."""
    if not remote(folder):
        return sorted(p for p in folder.rglob("*") if p.is_file())
    if not exists(folder):
        return []
    found = []
    for item in folder.iterdir():
        found += files(item) if item.is_dir() else [item]
    return sorted(found)


def copy_tree(source: Path, target: Path) -> None:
    """Copies all files below a folder; one of the two is local, or both are.

    Raises:
      UserError: the store cannot be read or written.
    """

    def copy(file: Path) -> None:
        to = target / file.relative_to(source).as_posix()
        if not remote(to):
            to.parent.mkdir(parents=True, exist_ok=True)
        with reached(file), reached(to), file.open("rb") as read, to.open("wb") as write:
            shutil.copyfileobj(read, write, 2**22)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(copy, files(source)))


def local_copy(folder: Path, cache: Path) -> Path:
    """A local folder itself; of a remote one a copy in the cache, made once.

    The copy's name follows from the folder's address and from its files' names and sizes.

    Raises:
      UserError: the store cannot be read, or there is no room.
    """
    if not remote(folder):
        return folder
    with reached(folder):
        listing = [f"{f.relative_to(folder).as_posix()} {f.stat().length}" for f in files(folder)]  # type: ignore[attr-defined]
    digest = hashlib.sha256("\n".join([str(folder), *listing]).encode()).hexdigest()[:16]
    copy = cache / digest
    if copy.exists():
        return copy
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".copy.") as scratch:
            part = Path(scratch) / "part"
            copy_tree(folder, part)
            with contextlib.suppress(OSError):  # another process was as quick
                part.rename(copy)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be copied to {cache} ({error.strerror or error}): make room, or name "
            "another folder in ECG_JAX_LOCAL"
        ) from error
    return copy


class Beside:
    """A folder for files that are appended to: the run's own, or one beside it on this machine that
    `upload` copies to the run's, in an object store."""

    def __init__(self, folder: Path, *names: str):
        """Fetches the files `names`, where they are there."""
        self._folder = folder
        self.local = Path(tempfile.mkdtemp(prefix="ecg_jax.")) if remote(folder) else folder
        self._sent: dict[Path, tuple[int, int]] = {}
        for name in names if remote(folder) else ():
            with reached(folder), contextlib.suppress(FileNotFoundError):
                (self.local / name).write_bytes((folder / name).read_bytes())

    def upload(self) -> None:
        """Copies up what has changed. Raises a UserError if the store cannot be written."""
        if not remote(self._folder):
            return
        for file in files(self.local):
            state = (file.stat().st_mtime_ns, file.stat().st_size)
            if self._sent.get(file) != state:
                target = self._folder / file.relative_to(self.local).as_posix()
                with reached(target):
                    target.write_bytes(file.read_bytes())
                self._sent[file] = state

    def close(self) -> None:
        """Copies up what has changed, and removes the folder beside."""
        self.upload()
        if remote(self._folder):
            remove(self.local)
