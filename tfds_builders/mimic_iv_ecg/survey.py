"""What a copy of MIMIC-IV-ECG holds: its listed records against its files and their digests.

Everything is kept by number, not by path: 800,000 records have 1.6 million files.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from tfds_builders.archive import ZipPath
from tfds_builders.errors import RecordError, SourceError
from tfds_builders.files import SUMS, iterate, sum_lines, verify_sha256, with_suffix
from tfds_builders.jobs import Job
from tfds_builders.mimic_iv_ecg.table import MACHINE, RECORDS, Row, Table, place, stem_of

SUFFIXES = (".hea", ".dat")


class Jobs(Sequence[Job]):
    """The jobs of some rows of a table, each made when it is asked for."""

    def __init__(self, job: Callable[[int], Job], rows: np.ndarray):
        self._job, self._rows = job, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self._job(int(row)) for row in self._rows[index]]
        return self._job(int(self._rows[index]))


class Files:
    """Which files of a table's records are there, and their digests.

    Attributes:
      there: bool [N, 2], by suffix.
      digest: uint8 [N, 2, 32]; zeros where `SHA256SUMS.txt` has none.
      listed: bool [N, 2], whether it has.
      bad: {record id, or stem of what is no listed record: reason}.
    """

    def __init__(self, root: Path | ZipPath, table: Table, *, walk: bool = True):
        """Without `walk` the digests alone are read, and no file is looked for.

        Raises SourceError where the folder can't be read, or the digests are of another one.
        """
        N = len(table)
        self.there = np.zeros((N, len(SUFFIXES)), bool)
        self.listed = np.zeros((N, len(SUFFIXES)), bool)
        self.digest = np.zeros((N, len(SUFFIXES), 32), np.uint8)
        self.tables: dict[str, str] = {}
        self.bad: dict[str, str] = {}
        self._table = table
        surplus = self._find(root) if walk else set()
        sums = self._read_sums(root, surplus)
        self._compare(root, sums)

    def _find(self, root: Path | ZipPath) -> set[str]:
        """Notes the files that are there; returns those of records that are not listed."""
        surplus: set[str] = set()
        for file in _below(root):
            # One in capitals is there, but no reader finds it, and says so.
            if not with_suffix([file], SUFFIXES):
                continue
            stem = file.rpartition(".")[0]
            found = place(file[: len(stem)])
            i = self._table.index(found[1]) if found else -1
            if found is None or i < 0 or self._table.subject[i] != found[0]:
                surplus.add(file)
                reason = f"{file}: there, but no record of the dataset is listed so"
                self.bad.setdefault(stem, reason)
            elif file.endswith(SUFFIXES):
                self.there[i, SUFFIXES.index(file[len(stem) :])] = True
        return surplus

    def _read_sums(self, root: Path | ZipPath, surplus: set[str]) -> bool:
        """Whether there are any digests."""
        lines = known = 0
        with sum_lines(root / SUMS) as sums:
            for file, digest in sums:
                lines += 1
                known += self._note_sum(root, file, digest, surplus)
        if lines and not known and self.there.any():
            example = stem_of(*map(int, (self._table.subject[0], self._table.study[0])))
            raise SourceError(
                f"{root / SUMS}: lists {lines} files and none of the {self.there.sum()} of records "
                f"that are there, such as {example}.hea: is it of another folder?"
            )
        return lines > 0

    def _note_sum(self, root: Path | ZipPath, file: str, digest: str, surplus: set[str]) -> bool:
        """Keeps a digest; whether its file is a record's that is listed or there."""
        if file in (RECORDS, MACHINE):
            self.tables[file] = digest
        if not with_suffix([file], SUFFIXES):
            return False
        found = place(file)
        i = self._table.index(found[1]) if found else -1
        own = found and i >= 0 and self._table.subject[i] == found[0] and found[2] in SUFFIXES
        if not own:
            stem = file.rpartition(".")[0]
            if file.startswith("files/") and file not in surplus:
                self.bad.setdefault(stem, f"{file}: listed in {SUMS}, but not there")
            return file in surplus
        k = SUFFIXES.index(file[-4:])
        if self.listed[i, k] and bytes(self.digest[i, k]).hex() != digest:
            raise SourceError(f"{root / SUMS}: two digests of {file}")
        self.listed[i, k] = True
        self.digest[i, k] = np.frombuffer(bytes.fromhex(digest), np.uint8)
        return True

    def _compare(self, root: Path | ZipPath, sums: bool) -> None:
        for i in np.flatnonzero(~self._table.measured):
            key = str(self._table.study[i])
            self.bad[key] = f"listed in {RECORDS}, but not in {MACHINE}"
        if not sums:
            return
        for i, k in np.argwhere(self.there & ~self.listed):
            stem = stem_of(int(self._table.subject[i]), int(self._table.study[i]))
            key = str(self._table.study[i])
            self.bad.setdefault(key, f"{stem}{SUFFIXES[k]}: not listed in {SUMS}")

    def digests(self, i: int, row: Row) -> dict[str, str]:
        """{file name: digest} of a record's files."""
        return {
            f"{row.study}{suffix}": bytes(self.digest[i, k]).hex()
            for k, suffix in enumerate(SUFFIXES)
            if self.listed[i, k]
        }

    def verify_tables(self, root: Path | ZipPath) -> None:
        """Raises SourceError where a table is not what its digest says."""
        for name, digest in self.tables.items():
            try:
                verify_sha256(root / name, digest)
            except RecordError as error:
                raise SourceError(str(error)) from error

    def fingerprint(self, root: Path | ZipPath) -> str:
        """sha256 over the tables, the names of the files that are there, and their contents: of
        headers as `SHA256SUMS.txt` says, with which they are compared when they are read, or as
        they are; of signals by the checksums in them."""
        whole = hashlib.sha256()
        for name in (RECORDS, MACHINE):
            with (root / name).open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        for i in range(len(self._table)):
            stem = stem_of(int(self._table.subject[i]), int(self._table.study[i]))
            whole.update(f"{stem}\0{self.there[i].tolist()}".encode())
            if self.listed[i, 0]:
                whole.update(bytes(self.digest[i, 0]))
            elif self.there[i, 0]:
                whole.update(_content(root / f"{stem}.hea"))
        for stem in sorted(self.bad):
            whole.update(stem.encode())
        return whole.hexdigest()


def _below(root: Path | ZipPath) -> Iterator[str]:
    if isinstance(root, ZipPath):
        return root.iterate("files")
    return iterate(root, "files")


def _content(path: Path | ZipPath) -> bytes:
    """The sha256 of a header. Reading the record says what is wrong with one that can't be read."""
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except (OSError, RecordError):
        return b"unread"
