"""What a report shows, from the folders of runs that were evaluated."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecg_jax.data.classes import TASKS
from ecg_jax.errors import UserError
from ecg_jax.evaluation import tasks
from ecg_jax.evaluation.figures import across, predictions, results
from ecg_jax.evaluation.figures.predictions import Predictions
from ecg_jax.evaluation.figures.results import Row, counted
from ecg_jax.evaluation.papers import published
from ecg_jax.report import picture_file
from ecg_jax.report.content import Content, Embedding, PromptMap, Sample, Waves
from ecg_jax.report.gather import PROTOCOLS
from ecg_jax.runtime import files
from ecg_jax.text import prompts

PICTURES = "pictures.npz"
PUBLISHED = {"ptb_xl": 21_799, "cpsc2018": 6_877, "ludb": 200}  # records, all splits together


def content(folder: Path, saved: dict[str, Any]) -> Content:
    """What a run's folder holds: results.json, predictions.npz, pictures.npz and metrics.jsonl.

    Args:
      saved: the run's config.json.
    """
    rows = results.read(folder / "results.json")
    datasets = dict.fromkeys(row["dataset"] for row in rows)
    title = f"{saved['config']['method'].upper()} on {' and '.join(datasets)}"
    return _content(title, {folder: saved}, rows)


def several(title: str, runs: Mapping[Path, dict[str, Any]], rows: Sequence[Row]) -> Content:
    """What several runs' folders hold: figures of all seeds, curves and pictures of the first run.

    Args:
      runs: folder -> its config.json.
    """
    made = _content(title, runs, rows)
    (first, saved), *others = runs.items()
    one = f"{first.name} (seed {saved['config']['seed']})"
    made = dataclasses.replace(made, drawn=f"Of the run {one}.")
    if not others:
        return made
    names = ", ".join(folder.name for folder in runs)
    description = [("runs", names), ("described here", one), *made.description[1:]]
    return dataclasses.replace(made, description=description)


def _content(title: str, runs: Mapping[Path, dict[str, Any]], rows: Sequence[Row]) -> Content:
    (first, saved), *_ = runs.items()
    scored = sorted(predictions.read(first / "predictions.npz"), key=_place)
    tower = saved["text_tower"]
    limits = ["Research software: not a medical device, not for diagnosis."]
    if tower["stand_in"]:
        limits.append(f"The text tower is a stand-in: {tower['note']}.")
    rows = sorted(rows, key=lambda row: task_place(row["dataset"], row["task"]))
    most = {row["dataset"]: 0 for row in rows}
    for row in rows:
        most[row["dataset"]] = max(most[row["dataset"]], row["n"])
    sizes = " and ".join(f"{counted(n, 'test record')} of {dataset}" for dataset, n in most.items())
    limits.append(f"At most {sizes}: the intervals say how much that tells.")
    step = next((row.get("step") for row in results.read(first / "results.json")), None)
    pictures = picture_file.read(first / PICTURES, step)
    return Content(
        title=title,
        description=describe(first, saved),
        limits=limits,
        rows=[row for row in rows if not across.is_gain(row)],
        compared=[row for row in rows if across.is_gain(row)],
        predictions=[p for p in scored if p.split == "test"],
        validation=[p for p in scored if p.split == "validation"],
        published=papers(),
        history=[row for folder, run in runs.items() for row in _history(folder, run)],
        prompts=[p for p in pictures if isinstance(p, PromptMap)],
        embeddings=[p for p in pictures if isinstance(p, Embedding)],
        samples=[p for p in pictures if isinstance(p, Sample)],
        words={(p.dataset, p.task): _words(saved, p) for p in scored},
        waves=[p for p in pictures if isinstance(p, Waves)],
    )


def _words(saved: dict[str, Any], p: Predictions) -> dict[str, str]:
    """What a task's classes are, as the run's prompts have it."""
    own = saved["config"]["evaluate"].get("prompts") or None
    try:
        entries = prompts.entries_of(p.classes, tasks.section(p.dataset, p.task), own)
    except UserError:  # the file is gone, or another one
        return {}
    return {code: entry["name"] for code, entry in entries.items() if entry["name"] != code}


def task_place(dataset: str, task: str) -> tuple[int, int]:
    """Datasets and their tasks as this project lists them; others, and retrieval, after those."""
    datasets, tasks = list(TASKS), list(TASKS.get(dataset, ()))
    return _place_in(datasets, dataset), _place_in(tasks, task)


def _place_in(names: list[str], name: str) -> int:
    return names.index(name) if name in names else len(names)


def _place(p: Predictions) -> tuple[int, int, int]:
    dataset, task = task_place(p.dataset, p.task)
    return dataset, list(PROTOCOLS).index(p.protocol), task


def describe(folder: Path, saved: dict[str, Any]) -> list[tuple[str, str]]:
    config, tower = saved["config"], saved["text_tower"]
    splits = (f"{name} {digest[:12]}" for name, digest in saved["splits"].items())
    packages = (f"{name} {version}" for name, version in saved["packages"].items())
    return [
        ("run", folder.name),
        ("method", config["method"]),
        ("trained on", f"{_dataset(saved)}, {config['rate']} Hz, seed {config['seed']}"),
        ("text tower", tower["note"]),
        ("splits (sha256)", ", ".join(splits)),
        ("code", f"ecg_jax {saved['ecg_jax']}, commit {saved['commit']}"),
        ("device", saved["device"]),
        ("packages", ", ".join(packages)),
    ]


def _dataset(saved: dict[str, Any]) -> str:
    """Its name, and whether it is all of what was published."""
    name, counts = saved["config"]["dataset"], saved.get("records")
    if not counts:  # an earlier run
        return name
    sizes = ", ".join(f"{split} {n:,}" for split, n in counts.items())
    part = "a subset of " if sum(counts.values()) < PUBLISHED.get(name, 0) else ""
    return f"{part}{name} (records: {sizes})"


def papers() -> list[dict[str, Any]]:
    """Published figures; the field's benchmark judges all records, as the corrected rule does."""
    rules = {"paper": "paper", "benchmark": "corrected"}
    return [row | {"source": _source(row), "rule": rules[row["rule"]]} for row in published.load()]


def _source(row: dict[str, Any]) -> str:
    """`ETP, table 1`; `SimCLR (METS, table 1)`; `MERL, 10 %`."""
    own = row["encoder"] in row["source"]
    name = row["source"] if own else f"{row['encoder']} ({row['source']})"
    if row["rule"] == "benchmark" and own:
        name = row["encoder"]
    return name if row["fraction"] in (None, 1) else f"{name}, {row['fraction']:.0%}"


def _history(folder: Path, saved: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        row | {"seed": saved["config"]["seed"]}
        for row in files.read_lines(folder / "metrics.jsonl")
    ]
