"""Whether a prepared folder is as it was made: see `tfds_builders.seal`, which says what it is."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from ecg_jax.errors import UserError

SEAL = "sealed"
# Bytes of a split. A larger one, which no start reads as a whole, is known by its shards' sizes;
# each of its records is compared with the index when it is read.
LARGE = 8e9


def damaged(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} is not as it was prepared ({reason}): prepare the dataset again, with --overwrite"
    )


def check(path: Path, builder: Any, metadata: dict[str, Any], split: str) -> None:
    """Raises a UserError for a folder that is not as it was made: shards that are damaged, of
    another split or build, or other metadata. Earlier versions sealed none."""
    seal = metadata.get(SEAL)
    if seal is None:
        return
    said = {name: value for name, value in metadata.items() if name != SEAL}
    text = json.dumps(said, sort_keys=True, ensure_ascii=False)
    try:
        if hashlib.sha256(text.encode()).hexdigest() != seal["metadata"]:
            raise damaged(path, "metadata.json has been changed")
        if _file_sha256(path / "features.json") != seal["features"]:
            raise damaged(path, "features.json has been changed")
        info = builder.info.splits[split]
        if list(info.shard_lengths) != seal["lengths"].get(split):
            raise damaged(path, f"dataset_info.json says otherwise how many records {split} has")
        large = info.num_bytes > LARGE
        for shard in map(Path, info.filepaths):
            there = _size(shard) if large else _file_sha256(shard)
            if there != seal["sizes" if large else "shards"].get(shard.name):
                what = f"a shard of split {split!r} is missing or damaged, or of another"
                raise damaged(path, f"{what} split or build: {shard.name}")
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(path, f"metadata.json: {error!r}") from None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _file_sha256(path: Path) -> str:
    """Of a file, once as long as it is not written; empty of one that is not there."""
    try:
        found = path.stat()
        return _sha256_of(path, found.st_mtime_ns, found.st_size)
    except OSError:
        return ""


@functools.lru_cache(maxsize=4096)
def _sha256_of(path: Path, *_: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
