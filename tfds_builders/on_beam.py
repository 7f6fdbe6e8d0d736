"""Shards written by the workers of Apache Beam, `pip install 'ecg_jax[beam]'`.

Signals never pass through Beam: an element is a shard's place in the list, and what comes of it
lies beside the shard. So a runner has nothing to shuffle, and what it loses is seen.
"""

import logging
import shlex
from collections.abc import Sequence

from tfds_builders.errors import SourceError
from tfds_builders.shards import Recipe, Shard, write_shard

# DirectRunner's modes that do not do what they are asked to (apache-beam 2.77).
REFUSED = {
    "multi_processing": "loses records (3,024 of 20,000, and exit 0)",
    "multi_threading": "mixes up what its threads are sent",
}


def options(text: str) -> list[str]:
    """The words of --beam. Raises SourceError for what is known to lose records."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise SourceError(f"--beam {text!r}: {error}") from None
    _pipeline_options(words)
    return words


def run(recipe: Recipe, shards: Sequence[Shard], words: Sequence[str]) -> None:
    """Has the shards written, on whatever runner the options name, and waits.

    Raises SourceError where the runner fails.
    """
    parsed = _pipeline_options(words)
    import apache_beam as beam

    if _is_direct(parsed):  # what fails here is in the error that is raised
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL)

    try:
        with beam.Pipeline(runner=_runner(parsed), options=parsed) as pipeline:
            _ = (
                pipeline
                | "Shards" >> beam.Create(list(shards))
                | "Spread" >> beam.Reshuffle()
                | "Write" >> beam.Map(write_shard, recipe)
            )
    except SourceError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise SourceError(f"Apache Beam's runner failed: {reason[0][:300]}") from error


def _pipeline_options(words: Sequence[str]):
    logger, level = logging.getLogger(), logging.getLogger().level
    logger.setLevel(logging.ERROR)  # Beam warns of Google's packages, which few runners need
    try:
        from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions
    except ImportError:
        raise SourceError(
            "--beam needs Apache Beam: pip install 'ecg_jax[beam]' (or uv run --extra beam)"
        ) from None
    finally:
        logger.setLevel(level)
    parsed = PipelineOptions(list(words))
    mode = parsed.view_as(DirectOptions).direct_running_mode
    if _is_direct(parsed) and mode in REFUSED:
        raise SourceError(f"--direct_running_mode {mode} {REFUSED[mode]}: use in_memory")
    return parsed


def _is_direct(parsed) -> bool:
    from apache_beam.options.pipeline_options import StandardOptions

    name = parsed.view_as(StandardOptions).runner or "DirectRunner"
    return name.rpartition(".")[2] in ("DirectRunner", "SwitchingDirectRunner", "FnApiRunner")


def _runner(parsed):
    """On this machine the runner that was tried; DirectRunner may choose another one by itself."""
    if not _is_direct(parsed):
        return None
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    return FnApiRunner()
