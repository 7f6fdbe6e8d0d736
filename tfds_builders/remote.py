"""Data folders and sources in an object store: gs:// and s3://.

TFDS writes to file systems only. So a source is copied here first, and what is prepared here is
copied there, `dataset_info.json` last: without it nothing is prepared.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from etils import epath

from tfds_builders.errors import SourceError

PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}
MARK = "dataset_info.json"
_THREADS = 16


def path(text: str) -> Any:
    """A local path, or the same of an object store. Raises SourceError for what is neither."""
    scheme, found, rest = text.partition("://")
    if not found:
        if text.startswith(("gs:", "s3:")):
            raise SourceError(f"{text}: write it {text[:3]}//BUCKET/FOLDER")
        try:
            return Path(text).expanduser()
        except RuntimeError as error:  # no such user, or one without a home folder
            raise SourceError(f"{text}: {error}") from None
    if scheme not in PACKAGES or not rest.strip("/"):
        raise SourceError(f"{text}: name a local folder, gs://BUCKET/FOLDER or s3://BUCKET/FOLDER")
    there = epath.Path(text)
    try:
        there.exists()
    except ImportError:
        raise SourceError(f"{text} needs the package: pip install {PACKAGES[scheme]}") from None
    except Exception as error:  # the store's, the credentials' or the network's
        raise _unreachable(text, error) from error
    return there


def remote(folder: Any) -> bool:
    return not isinstance(folder, Path)


def fetch(folder: Any, to: Path) -> Path:
    """A folder, or a copy of a remote one. Raises SourceError if the store cannot be read."""
    if remote(folder):
        copy(folder, to)
    return to if remote(folder) else folder


def put(prepared: Path, to: Any) -> None:
    """Copies a prepared version into a store, in place of one that may be there."""
    try:
        if to.exists():
            (to / MARK).unlink(missing_ok=True)
            to.rmtree(missing_ok=True)
        copy(prepared, to, but=MARK)
        (to / MARK).write_bytes((prepared / MARK).read_bytes())
    except SourceError:
        raise
    except Exception as error:
        raise _unreachable(to, error) from error


def copy(source: Any, target: Any, but: str = "") -> None:
    """Copies all files below a folder, one of the two being local; not the file `but`."""

    def files(folder: Any) -> list[Any]:
        return [f for item in folder.iterdir() for f in (files(item) if item.is_dir() else [item])]

    def copy_one(file: Any) -> None:
        name = file.relative_to(source)
        if ".." in name.parts:
            raise SourceError(f"{file}: a name that leaves its folder")
        to = target / name.as_posix()
        if not remote(to):
            to.parent.mkdir(parents=True, exist_ok=True)
        with file.open("rb") as read, to.open("wb") as write:
            shutil.copyfileobj(read, write, 2**22)

    where = source if remote(source) else target
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(copy_one, [f for f in files(source) if f.name != but]))
    except SourceError:
        raise
    except Exception as error:
        raise _unreachable(where, error) from error


def _unreachable(where: Any, error: Exception) -> SourceError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return SourceError(
        f"{where} cannot be read or written ({reason}): check the bucket, its permissions and this "
        "machine's credentials"
    )
