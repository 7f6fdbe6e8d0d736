"""Folders in the published layouts, and what the builders make of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from tfds_builders import prepare
from tfds_builders.build import VERSION


@pytest.fixture
def build(tmp_path) -> Callable[..., tfds.core.DatasetBuilder]:
    """build(name, source, *options): prepares it and reads it back without the builder's code."""

    def run(name: str, source: Path, *options: str) -> tfds.core.DatasetBuilder:
        data_dir = tmp_path / "data"
        arguments = [name, "--source", str(source), "--data_dir", str(data_dir), *options]
        assert prepare.main(arguments) == 0
        rate = options[options.index("--rate") + 1] if "--rate" in options else "500"
        return tfds.builder_from_directory(data_dir / name / f"rate{rate}" / str(VERSION))

    return run


@pytest.fixture
def examples() -> Callable[[tfds.core.DatasetBuilder], dict[str, tuple[str, dict]]]:
    """examples(builder): {record id: (split, example)} of all splits."""
    return lambda builder: {
        example["record_id"].decode(): (split, example)
        for split in builder.info.splits
        for example in builder.as_data_source(split)
    }
