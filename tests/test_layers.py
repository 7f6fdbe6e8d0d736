"""Data goes one way: no module imports one that lies higher."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# From low to high. A module may import its own layer and those before it.
LAYERS = (
    ("errors", "files", "cache", "malloc", "hosts", "parallel", "health"),
    ("data", "text", "models", "losses", "config"),
    ("methods", "towers", "ema", "optim", "checkpoint"),
    ("experiment",),
    ("evaluation",),
    ("workdir", "progress", "feed", "stop"),
    ("evaluate",),
    ("train", "export", "show_prompts", "show_augment"),
    ("reproduce",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = sorted((ROOT / "ecg_jax").rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[1] if parts[0] == "ecg_jax" and len(parts) > 1 and parts[1] in LEVEL else None


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_from_below(path):
    name = path.relative_to(ROOT / "ecg_jax").parts[0].removesuffix(".py")
    if name == "__init__":
        return
    assert name in LEVEL, f"{name} has no layer yet: add it to LAYERS"
    for dotted in imports(path):
        below = layer(dotted)
        assert below is None or LEVEL[below] <= LEVEL[name], f"{name} imports {dotted}"


def test_only_checkpoint_imports_orbax():
    users = [p.name for p in FILES if any(i.startswith("orbax") for i in imports(p))]
    assert users == ["checkpoint.py"]


@pytest.mark.parametrize("package", ["tensorflow", "torch"])
def test_no_other_framework(package):
    allowed = {"weights.py"} if package == "torch" else set()
    folders = (ROOT / "ecg_jax", ROOT / "tfds_builders", ROOT / "configs")
    users = {
        p.name
        for folder in folders
        for p in folder.rglob("*.py")
        if any(i.split(".")[0] == package for i in imports(p))
    }
    assert users <= allowed


def test_builders_do_not_import_the_library():
    for path in (ROOT / "tfds_builders").rglob("*.py"):
        assert not any(i.split(".")[0] == "ecg_jax" for i in imports(path)), path


def test_builders_and_library_agree_on_the_leads():
    from ecg_jax.data.leads import LEADS
    from tfds_builders.records import LEADS as BUILDERS_LEADS

    assert tuple(BUILDERS_LEADS) == LEADS


def test_nothing_unpickles():
    for path in [*FILES, *(ROOT / "tfds_builders").rglob("*.py")]:
        assert not {"pickle", "dill", "cloudpickle", "joblib"} & imports(path), path
