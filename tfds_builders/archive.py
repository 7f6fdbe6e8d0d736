"""A folder in a zip archive, read where it lies: what the builders use of `pathlib.Path`."""

import functools
import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from tfds_builders.errors import RecordError, SourceError

# A record's file is read into memory. MIT-BIH's are 2 MB, all others' are less.
MAX_BYTES = 1 << 28


class ZipPath:
    """A place in an archive, which is known by its path or address; threads may read at once."""

    def __init__(self, archive: str, inside: PurePosixPath):
        self._name, self._inside = archive, inside

    @property
    def _archive(self) -> zipfile.ZipFile:
        return _opened(self._name)

    def __truediv__(self, name: str | PurePosixPath) -> "ZipPath":
        return self._at(self._inside / name)

    def __str__(self) -> str:
        return f"{self._name}/{self._inside}".removesuffix("/.")

    def __repr__(self) -> str:
        return f"ZipPath({str(self)!r})"

    @property
    def name(self) -> str:
        return self._inside.name

    @property
    def suffix(self) -> str:
        return self._inside.suffix

    @property
    def parent(self) -> "ZipPath":
        return self._at(self._inside.parent)

    def with_name(self, name: str) -> "ZipPath":
        return self._at(self._inside.with_name(name))

    def with_suffix(self, suffix: str) -> "ZipPath":
        return self._at(self._inside.with_suffix(suffix))

    def is_file(self) -> bool:
        return str(self._inside) in self._archive.NameToInfo

    def iterate(self, below: str = "") -> Iterator[str]:
        """Paths, relative to here, of the files below the folder `below`; see `files.walk`."""
        prefix = "" if self._inside == PurePosixPath() else f"{self._inside}/"
        wanted = f"{prefix}{below}/" if below else prefix
        for name in self._archive.NameToInfo:
            parts = name.split("/")
            if not name.startswith(wanted) or name.endswith("/"):
                continue
            if "__MACOSX" not in parts and not parts[-1].startswith("._"):
                yield name.removeprefix(prefix)

    def open(self, mode: str = "rb") -> IO[bytes]:
        """Raises FileNotFoundError, or RecordError where the archive can't give the file."""
        assert mode == "rb"
        try:
            file = _Checked(self._archive.open(str(self._inside)), str(self))
            return io.BufferedReader(file, 1 << 16)
        except KeyError:
            raise FileNotFoundError(2, "No such file in the archive", str(self)) from None
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise RecordError(f"{self}: can't be read from the archive ({error})") from None

    def read_bytes(self) -> bytes:
        """Raises as `open` does, and for a file that is beyond MAX_BYTES, whatever it claims."""
        with self.open() as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise RecordError(f"{self}: more than {MAX_BYTES >> 20} MiB, which no record has")
        return data

    def _at(self, inside: PurePosixPath) -> "ZipPath":
        return ZipPath(self._name, inside)


class _Checked(io.RawIOBase):
    """A file of an archive whose damage is a RecordError."""

    def __init__(self, file: IO[bytes], where: str):
        self._file, self._where = file, where

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except (zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
            raise RecordError(f"{self._where}: damaged in the archive ({error})") from None

    def close(self) -> None:
        self._file.close()
        super().close()


def is_archive(name: str | Path) -> bool:
    return str(name).endswith(".zip")


@functools.cache
def _opened(name: str) -> zipfile.ZipFile:
    """One for each process: the list of 1.6 million files takes a gigabyte and some seconds."""
    if "://" not in name:
        return zipfile.ZipFile(name)
    import fsspec

    return zipfile.ZipFile(fsspec.open(name, "rb").open())


def open_archive(name: str | Path, holding: str) -> ZipPath:
    """The folder of an archive in which the file `holding` lies; raises SourceError."""
    try:
        names = _opened(str(name)).namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise SourceError(f"{name}: not a zip archive that can be read ({error})") from None
    found = [inside for inside in names if PurePosixPath(inside).name == holding]
    if not found:
        raise SourceError(f"{name}: holds no {holding}: is it the published archive?")
    nearest = min(found, key=lambda inside: (inside.count("/"), inside))
    return ZipPath(str(name), PurePosixPath(nearest).parent)
