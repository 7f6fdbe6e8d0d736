"""Files that are written whole or not at all."""

import os
import tempfile
from pathlib import Path

from ecg_jax.errors import UserError


def write_whole(path: Path, data: bytes) -> None:
    """Raises a UserError if the file cannot be written; what was there stays then."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
