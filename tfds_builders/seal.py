"""What a prepared folder says of itself: whoever opens it can tell whether it is as it was made.

`metadata.json` holds, under `SEAL`, the sha256 of every shard and of `features.json`, how many
records are in each shard, and the sha256 of the rest of the metadata.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from tfds_builders.files import sha256_of

SEAL = "sealed"
FEATURES = "features.json"


def seal(builder: tfds.core.DatasetBuilder) -> None:
    """To be called when all shards are written, and TFDS has not yet put them in their place."""
    folder = Path(builder.data_dir)
    builder.info.write_to_directory(folder)  # as TFDS will once more
    metadata = builder.info.metadata
    metadata.pop(SEAL, None)
    shards = sorted(folder.glob(f"{builder.name}-*.array_record-*"))
    metadata[SEAL] = {
        "shards": {path.name: sha256_of(path) for path in shards},
        "sizes": {path.name: path.stat().st_size for path in shards},
        "lengths": {s.name: list(s.shard_lengths) for s in builder.info.splits.values()},
        "features": sha256_of(folder / FEATURES),
        "metadata": digest(metadata),
    }


def digest(metadata: Mapping[str, Any]) -> str:
    """sha256 of what metadata say, but for the seal."""
    said = {name: value for name, value in metadata.items() if name != SEAL}
    text = json.dumps(said, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
