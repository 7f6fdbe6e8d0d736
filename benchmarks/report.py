"""How a benchmark shows its figures: one JSON line, then a table."""

import json
import os
import platform
from importlib import metadata
from typing import Any


def show(rows: list[dict[str, Any]], **about: Any) -> None:
    """Prints `{"about": ..., "rows": [...]}` and the rows as a Markdown table."""
    print(json.dumps({"about": {**machine(), **about}, "rows": rows}))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns, ["---"] * len(columns)]
    cells += [[_cell(row.get(name, "")) for name in columns] for row in rows]
    for line in cells:
        print("| " + " | ".join(line) + " |")


def machine() -> dict[str, Any]:
    """Where the figures are from."""
    packages = {}
    for name in ("jax", "jaxlib", "torch", "grain"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),  # other processes' share of the cores
        "python": platform.python_version(),
        **packages,
    }


def _cell(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
