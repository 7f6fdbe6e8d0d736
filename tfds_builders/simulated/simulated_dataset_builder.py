"""Simulated 12-lead ECGs with reports and labels, in the schema of the recorded datasets."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.build import (
    RELEASE_NOTES,
    VERSION,
    Example,
    RateConfig,
    features,
    multi_hot,
)
from tfds_builders.errors import SourceError
from tfds_builders.leads import LEADS
from tfds_builders.progress import progress
from tfds_builders.seal import seal
from tfds_builders.simulated.cases import SECONDS, Case, draw_cases, make
from tfds_builders.simulated.findings import CODES, DESCRIPTIONS, SUPERCLASSES, superclasses

_CLASSES = {"findings": CODES, "super": SUPERCLASSES}
_SUPER_DESCRIPTIONS = {
    "MI": "myocardial infarction",
    "STTC": "ST/T changes",
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
}
_SPLIT_OF_FOLD = {**dict.fromkeys(range(1, 9), "train"), 9: "validation", 10: "test"}
_RECORDS_PER_SHARD = 1000


@dataclasses.dataclass
class SimulatedConfig(RateConfig):
    """How many records are simulated, from which seed."""

    records: int = 3000
    seed: int = 0


class Builder(tfds.core.ShardBasedBuilder):
    """TFDS builder of simulated records; patients of folds 1-8, 9 and 10 are the splits.

    One process makes them all: at hundreds a second, starting others takes longer than it saves.
    """

    VERSION = VERSION
    RELEASE_NOTES: ClassVar = RELEASE_NOTES
    BUILDER_CONFIGS: ClassVar = [
        SimulatedConfig(name=f"rate{rate}", description=f"Signals at {rate} Hz.", rate=rate)
        for rate in (500, 100)
    ]

    def __init__(self, *, file_format: str | None = None, **kwargs):
        super().__init__(file_format=file_format or "array_record", **kwargs)
        self._num_records = self.builder_config.records

    @property
    def num_records(self) -> int:
        """How many records to simulate; set it before `download_and_prepare`.

        Raises SourceError where another number of records already lies in the data folder.
        """
        return self._num_records

    @num_records.setter
    def num_records(self, count: int) -> None:
        # TFDS would go on with what lies there, whatever its size.
        if self.is_prepared() and (there := self.info.metadata["records"]) != count:
            raise SourceError(
                f"{self.data_path} holds {there} records, not {count}: remove it, "
                "or choose another data_dir"
            )
        self._num_records = count

    def _info(self) -> tfds.core.DatasetInfo:
        rate = self.builder_config.rate
        sizes = {task: len(codes) for task, codes in _CLASSES.items()}
        metadata = {
            "rate": rate,
            "units": "uV",
            "leads": list(LEADS),
            "classes": {task: list(codes) for task, codes in _CLASSES.items()},
            "descriptions": DESCRIPTIONS | _SUPER_DESCRIPTIONS,
            "bad_records": {},
            "source": "simulated, not recorded from people",
            "signals": "simulated",
            "source_rate": rate,
            "seed": self.builder_config.seed,
        }
        return self.dataset_info_from_configs(
            features=features(sizes, SECONDS * rate),
            metadata=tfds.core.MetadataDict(metadata),
        )

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager):
        del dl_manager
        self.info.metadata["records"] = self.num_records
        splits = {split: [] for split in _SPLIT_OF_FOLD.values()}
        for case in draw_cases(self.num_records, self.builder_config.seed):
            splits[_SPLIT_OF_FOLD[case.fold]].append(case)
        return {
            split: [
                functools.partial(self._examples, split, cases[i : i + _RECORDS_PER_SHARD])
                for i in range(0, len(cases), _RECORDS_PER_SHARD)
            ]
            for split, cases in splits.items()
            if cases
        }

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        super()._download_and_prepare(dl_manager, download_config)
        seal(self)

    def _examples(self, split: str, cases: Sequence[Case]) -> Iterator[tuple[str, Example]]:
        rate = self.builder_config.rate
        with progress(len(cases), f"{self.name}/rate{rate} {split}") as bar:
            for case in cases:
                bar.update()
                yield self._example(case)

    def _example(self, case: Case) -> tuple[str, Example]:
        simulated, text = make(case, self.builder_config.rate)
        return (
            str(case.record),
            {
                "ecg": simulated.ecg_uv,
                "lead_mask": np.ones(len(LEADS), np.bool_),
                "record_id": str(case.record),
                "patient_id": str(case.patient),
                "report": text,
                "fold": case.fold,
                "labels": {
                    "findings": multi_hot(simulated.findings, CODES),
                    "super": multi_hot(superclasses(simulated.findings), SUPERCLASSES),
                },
            },
        )
