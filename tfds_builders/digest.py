"""What tells whether a dataset is whole: sums of hashes, in which no order and no worker counts."""

import dataclasses
import hashlib
from typing import Any

from tfds_builders.errors import SourceError

_BITS = 256


def record_sha256(example: dict[str, Any]) -> bytes:
    """Over a record's id, patient, report, signal, leads and labels."""
    digest = hashlib.sha256()
    for name in ("record_id", "patient_id", "report"):
        digest.update(example[name].encode() + b"\0")
    digest.update(example["lead_mask"].tobytes())
    for task in sorted(example["labels"]):
        digest.update(task.encode() + b"\0" + example["labels"][task].tobytes())
    digest.update(example["ecg"].data)
    return digest.digest()


@dataclasses.dataclass
class Sum:
    """How many things there were, and the sum of their hashes."""

    count: int = 0
    value: int = 0

    def add(self, *parts: bytes) -> None:
        self.count += 1
        self.value = (self.value + _number(*parts)) % (1 << _BITS)

    def __iadd__(self, other: "Sum") -> "Sum":
        self.count += other.count
        self.value = (self.value + other.value) % (1 << _BITS)
        return self

    @property
    def hex(self) -> str:
        return f"{self.value:0{_BITS // 4}x}"


def _number(*parts: bytes) -> int:
    return int.from_bytes(hashlib.sha256(b"\0".join(parts)).digest(), "big")


@dataclasses.dataclass
class Account:
    """What has become of a split's jobs: `done` and `bad` of their record ids, `written` of the
    records themselves."""

    done: Sum = dataclasses.field(default_factory=Sum)
    bad: Sum = dataclasses.field(default_factory=Sum)
    written: Sum = dataclasses.field(default_factory=Sum)

    def __iadd__(self, other: "Account") -> "Account":
        self.done += other.done
        self.bad += other.bad
        self.written += other.written
        return self

    def check(self, split: str, listed: Sum, stored: int) -> None:
        """Raises SourceError unless every listed job was done or refused, and all is `stored`."""
        met = Sum()
        met += self.done
        met += self.bad
        if met != listed:
            raise SourceError(
                f"split {split}: of {listed.count} listed records {self.done.count} were read and "
                f"{self.bad.count} refused"
                + ("" if met.count != listed.count else ", and they are not those of the list")
                + ": records were lost on the way, so this is no dataset"
            )
        if stored != self.written.count:
            raise SourceError(
                f"split {split}: {self.written.count} records were written, and its shards hold "
                f"{stored}: records were lost on the way, so this is no dataset"
            )
