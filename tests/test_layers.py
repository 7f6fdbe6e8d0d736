"""Data goes one way: no module imports one that lies as high or higher."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ecg_jax"
# The rooms from low to high, by folder; rooms in one line do not know each other. "*" are all that
# are not named: METS is ETP with another config.
LAYERS = {
    "": (
        ("errors",),
        ("runtime",),
        ("data", "models", "losses"),
        ("text", "methods"),
        ("run",),
        ("training",),
        ("evaluation", "planning"),
        ("inference",),
        ("report",),
        ("evaluate",),
        ("train", "export", "predict"),
        ("tools",),
        ("reproduce", "show_prompts", "show_augment", "import_weights"),
        ("plan",),
    ),
    "evaluation": (
        ("tasks", "fractions", "robustness", "heart_rate"),
        ("figures", "guards"),
        ("protocols", "papers", "challenge"),
        ("identify",),
        ("subject",),
        ("controls",),
        ("scoring", "stand_ins", "delineate", "published_tables"),
        ("examine", "tabulate", "heads", "validator"),
    ),
    "inference": (
        ("scores", "words", "exported"),
        ("card", "hub", "plain"),
        ("model", "elsewhere"),
    ),
    "methods": (("shared",), ("*",)),
    "planning": (
        ("targets", "program", "flops", "hlo_text"),
        ("hlo", "utilisation"),
        ("bounds",),
        ("estimate",),
        ("show",),
    ),
    "run": (
        ("fields",),
        ("usage",),
        ("config",),
        ("experiment",),
        ("provenance",),
        ("exported", "workdir"),
    ),
    "training": (
        ("feed", "optim", "pace", "profile", "progress", "state"),
        ("packing",),
        ("step",),
    ),
}
LEVEL = {
    folder: {name: level for level, names in enumerate(layers) for name in names}
    for folder, layers in LAYERS.items()
}
FILES = sorted(PACKAGE.rglob("*.py"))


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


def module(dotted: str) -> tuple[str, ...] | None:
    """("methods", "etp") of "ecg_jax.methods.etp.build"; of what a package itself holds, which is
    below all of its modules, the package alone. None for what is not of the library."""
    first, *parts = dotted.split(".")
    if first != "ecg_jax":
        return None
    while parts and not (
        (at := PACKAGE.joinpath(*parts)).is_dir() or at.with_suffix(".py").exists()
    ):
        parts.pop()
    return tuple(parts)


def of(path: Path) -> tuple[str, ...]:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def level(folder: str, name: str) -> int:
    levels = LEVEL[folder]
    assert name in levels or "*" in levels, f"{folder}/{name} has no layer yet: add it to LAYERS"
    return levels.get(name, levels.get("*", 0))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_from_below(path):
    own = of(path)
    for dotted in imports(path):
        other = module(dotted)
        if not other or other == own:
            continue
        common = next((i for i, (a, b) in enumerate(zip(own, other, strict=False)) if a != b), None)
        if common is None:  # a package and what is in it
            continue
        folder = "/".join(own[:common])
        if folder in LEVEL:
            a, b = level(folder, own[common]), level(folder, other[common])
            alike = a == b == LEVEL[folder].get("*")
            assert b < a or alike, f"{'.'.join(own)} imports {dotted}"


@pytest.mark.parametrize("folder", LAYERS)
def test_every_room_is_there(folder):
    names = {name for name in LEVEL[folder] if name != "*"}
    modules = [p for p in (PACKAGE / folder).iterdir() if p.is_dir() or p.suffix == ".py"]
    there = {p.stem for p in modules if not p.name.startswith("_")}
    assert names <= there, f"LAYERS names what {folder or 'ecg_jax'} has not"
    assert "*" in LEVEL[folder] or names == there


def test_no_module_imports_itself_by_way_of_others():
    graph = {of(p): {m for d in imports(p) if (m := module(d))} - {of(p)} for p in FILES}
    done: set[tuple[str, ...]] = set()

    def walk(at: tuple[str, ...], path: tuple[tuple[str, ...], ...]) -> None:
        assert at not in path, " > ".join(".".join(m) for m in (*path, at))
        if at not in done:
            for other in sorted(graph.get(at, ())):
                walk(other, (*path, at))
            done.add(at)

    for start in graph:
        walk(start, ())


def test_one_file_imports_orbax():
    users = [p.name for p in FILES if any(i.startswith("orbax") for i in imports(p))]
    assert users == ["arrays.py"]


SLOW = ("scipy", "orbax", "grain", "tensorflow_datasets", "array_record", "tensorboardX")
SLOW += ("tokenizers", "transformers", "wfdb", "pandas", "sklearn")


def test_slow_packages_are_imported_where_they_are_used():
    """So that a command starts, and says what is wrong with its input, in half the time."""
    for path in FILES:
        for node in ast.parse(path.read_text()).body:  # not what functions import
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & set(SLOW), path


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
