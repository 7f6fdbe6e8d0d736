"""What a source holds, found before any signal is read: files against tables and digests."""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tfds_builders.errors import SourceError
from tfds_builders.files import SUMS, stem_of, with_suffix
from tfds_builders.jobs import Job


class Survey(NamedTuple):
    """What a source holds, found before any signal is read.

    Attributes:
      source: the folder, or what has its methods.
      plan: the jobs of every split.
      bad: {record id: reason} of what is known to be wrong.
      total: of the records that are there or listed.
      files_verified: how many of the files agree with `SHA256SUMS.txt` when they are read.
      source_sha256: fingerprint of the files that the build is made of.
    """

    source: Path
    plan: Mapping[str, Sequence[Job]]
    bad: dict[str, str]
    total: int
    files_verified: int
    source_sha256: str


def wrong_files(
    source: Path,
    files: list[str],
    sums: Mapping[str, str],
    planned: Collection[str],
    suffixes: Collection[str],
    wanted: Callable[[str], object],
) -> dict[str, str]:
    """{stem: reason} of records' files that no table or no digest knows, or that are not there.

    `planned` are the stems of listed records, `wanted` says which of the digests' files a build
    reads. Raises SourceError for digests of another folder.
    """
    return (
        _passed_over(files, planned, suffixes)
        | _absent(files, sums, planned, suffixes, wanted)
        | _unlisted(source, files, sums, suffixes)
    )


def _passed_over(
    files: list[str], planned: Collection[str], suffixes: Collection[str]
) -> dict[str, str]:
    """Files of records for which no job is planned."""
    stems: dict[str, list[str]] = {}
    for file in with_suffix(files, suffixes):
        if (stem := stem_of(file)) not in planned:
            stems.setdefault(stem, []).append(file)
    return {
        stem: f"{', '.join(there)}: there, but no record of the dataset is listed so"
        for stem, there in stems.items()
    }


def _absent(
    files: list[str],
    sums: Mapping[str, str],
    planned: Collection[str],
    suffixes: Collection[str],
    wanted: Callable[[str], object],
) -> dict[str, str]:
    """Files that only `SHA256SUMS.txt` knows of."""
    return {
        stem_of(file): f"{file}: listed in {SUMS}, but not there"
        for file in with_suffix(sums.keys() - set(files), suffixes)
        if wanted(file) and stem_of(file) not in planned
    }


def _unlisted(
    source: Path, files: list[str], sums: Mapping[str, str], suffixes: Collection[str]
) -> dict[str, str]:
    there = with_suffix(files, suffixes)
    return {stem_of(file): reason for file, reason in unlisted(source, there, sums).items()}


def unlisted(source: Path, there: Sequence[str], sums: Mapping[str, str]) -> dict[str, str]:
    """{file: reason} of records' files that `SHA256SUMS.txt`, where there is one, does not list.

    Raises SourceError where it lists none of them.
    """
    missing = [file for file in there if file not in sums]
    if not sums or not missing:
        return {}
    if len(missing) == len(there):
        raise SourceError(
            f"{source / SUMS}: lists {len(sums)} files and none of the {len(there)} of records "
            f"that are there, such as {there[0]}: is it of another folder?"
        )
    return {file: f"{file}: not listed in {SUMS}" for file in missing}
