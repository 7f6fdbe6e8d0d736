"""Seeded mutations of the files in a folder: what transfers, editors and disks do to them."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

EXTREME = (
    *("0", "-1", "-0", "1e999", "-1e999", "nan", "inf", "NaN", "1e-320", "0x10", "1_000", "+5"),
    *("2147483648", "-2147483649", "4294967296", "9" * 20, "9" * 400, "0.5", "1,0", "1.5e300"),
    *("", " ", "None", "null", "true", "[]", "{}", "'", '"', "\\", "%s", "../x", "\x00", "µ", "🫀"),
)
TEXTS = (".hea", ".csv", ".txt", ".json", ".toml", ".xml", ".jsonl")


class Mutation(NamedTuple):
    """What was done to which files (paths in the folder), and how many lines of text it touched."""

    kind: str
    files: tuple[str, ...]
    lines: int = 0


def mutate(rng: random.Random, folder: Path, files: list[str]) -> Mutation:
    """Changes one of `files` in a folder, or two, and says what was done."""
    name = rng.choice(files)
    path = folder / name
    kinds = {**ANY, **(OF_TEXT if path.suffix in TEXTS else {})}
    kinds |= OF_JSON if path.suffix == ".json" else {}
    alike = [f for f in files if f != name and Path(f).suffix == path.suffix]
    if alike:
        kinds |= OF_TWO
    kind = rng.choice(list(kinds))
    before = path.read_bytes()
    if kind in OF_TWO:
        other = rng.choice(alike)
        OF_TWO[kind](rng, path, folder / other)
        return Mutation(kind, (name, other), _touched(before, path))
    if kind in ("drop", "rename"):
        ANY[kind](rng, path)
        return Mutation(kind, (name,), before.count(b"\n") + 1)
    kinds[kind](rng, path)
    return Mutation(kind, (name,), _touched(before, path))


def _touched(before: bytes, path: Path) -> int:
    """Lines of a file that are not those that were there, or in another place."""
    old, new = before.split(b"\n"), path.read_bytes().split(b"\n")
    same = sum(a == b for a, b in zip(old, new, strict=False))
    return max(len(old), len(new)) - same


def _bytes(change: Callable[[random.Random, bytearray], bytes | bytearray]):
    def apply(rng: random.Random, path: Path) -> None:
        path.write_bytes(change(rng, bytearray(path.read_bytes())))

    return apply


def _span(rng: random.Random, data: bytearray, most: int = 4096) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + 1 + rng.randrange(most))


def _flip(rng: random.Random, data: bytearray) -> bytearray:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _zero(rng: random.Random, data: bytearray) -> bytearray:
    a, b = _span(rng, data)
    data[a:b] = bytes(b - a)
    return data


def _remove(rng: random.Random, data: bytearray) -> bytearray:
    a, b = _span(rng, data)
    return data[:a] + data[b:]


def _repeat(rng: random.Random, data: bytearray) -> bytearray:
    a, b = _span(rng, data)
    return data[:b] + data[a:b] + data[b:]


def _exchange_blocks(rng: random.Random, data: bytearray) -> bytearray:
    if len(data) < 4:
        return data
    size = 1 + rng.randrange(min(512, len(data) // 2))
    a = rng.randrange(len(data) - 2 * size + 1)
    b = a + size + rng.randrange(len(data) - 2 * size - a + 1)
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return data


def _overwrite(rng: random.Random, data: bytearray) -> bytearray:
    a, b = _span(rng, data, 64)
    data[a:b] = rng.randbytes(b - a)
    return data


def _rename(rng: random.Random, path: Path) -> None:
    stem, suffix = path.stem, path.suffix
    names = (
        stem + suffix.upper(),
        f"x{stem}{suffix}",
        stem,
        f"{stem} (1){suffix}",
        f"._{path.name}",
    )
    new = path.with_name(rng.choice(names) or "x")
    if not new.exists():
        path.rename(new)


ANY: dict[str, Callable[[random.Random, Path], object]] = {
    "cut": _bytes(lambda rng, data: data[: rng.randrange(len(data) + 1)]),
    "cut at the beginning": _bytes(lambda rng, data: data[rng.randrange(len(data) + 1) :]),
    "empty": _bytes(lambda _, __: b""),
    "drop": lambda _, path: path.unlink(),
    "rename": _rename,
    "flip a bit": _bytes(_flip),
    "zeroes": _bytes(_zero),
    "remove a part": _bytes(_remove),
    "repeat a part": _bytes(_repeat),
    "exchange two parts": _bytes(_exchange_blocks),
    "overwrite": _bytes(_overwrite),
    "append": _bytes(lambda rng, data: data + rng.randbytes(1 + rng.randrange(64))),
    "append zeroes": _bytes(lambda rng, data: data + bytes(1 + rng.randrange(4096))),
}


def _lines(change: Callable[[random.Random, list[str]], object]):
    """Of a text: what is done to its lines, but for the empty one after the last."""

    def apply(rng: random.Random, path: Path) -> None:
        lines = path.read_bytes().decode("latin-1").split("\n")
        change(rng, lines)
        path.write_bytes("\n".join(lines).encode("latin-1", errors="replace"))

    return apply


def _swap_lines(rng: random.Random, lines: list[str]) -> None:
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[i], lines[j] = lines[j], lines[i]


def _in_a_line(change: Callable[[random.Random, str], str]):
    def of(rng: random.Random, lines: list[str]) -> None:
        i = rng.randrange(len(lines))
        lines[i] = change(rng, lines[i])

    return _lines(of)


def _number(rng: random.Random, line: str) -> str:
    found = list(re.finditer(r"-?\d+(?:\.\d+)?", line))
    if not found:
        return line
    match = rng.choice(found)
    return line[: match.start()] + rng.choice(EXTREME) + line[match.end() :]


def _swap_words(rng: random.Random, line: str) -> str:
    parts = re.split(r"([\s,]+)", line)
    words = range(0, len(parts), 2)
    i, j = rng.choice(words), rng.choice(words)
    parts[i], parts[j] = parts[j], parts[i]
    return "".join(parts)


def _drop_word(rng: random.Random, line: str) -> str:
    parts = re.split(r"([\s,]+)", line)
    del parts[rng.randrange(len(parts))]
    return "".join(parts)


OF_TEXT: dict[str, Callable[[random.Random, Path], object]] = {
    "drop a line": _lines(lambda rng, lines: lines.pop(rng.randrange(len(lines)))),
    "repeat a line": _lines(
        lambda rng, lines: lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    ),
    "exchange two lines": _lines(_swap_lines),
    "an extreme number": _in_a_line(_number),
    "another extreme number": _in_a_line(_number),
    "exchange two words": _in_a_line(_swap_words),
    "drop a word": _in_a_line(_drop_word),
    "UTF-16": _bytes(lambda _, data: data.decode("utf-8", errors="replace").encode("utf-16")),
    "byte order mark": _bytes(lambda _, data: b"\xef\xbb\xbf" + data),
    "Windows' line ends": _bytes(lambda _, data: data.replace(b"\n", b"\r\n")),
    "old Macs' line ends": _bytes(lambda _, data: data.replace(b"\n", b"\r")),
    "Latin-1": _bytes(lambda _, data: data + b"# \xb5V\n"),
}


def _splice(rng: random.Random, path: Path, other: Path) -> None:
    data, donor = path.read_bytes(), other.read_bytes()
    at = rng.randrange(len(data) + 1)
    path.write_bytes(data[:at] + donor[at:])


def _exchange(_: random.Random, path: Path, other: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(data)


OF_TWO: dict[str, Callable[[random.Random, Path, Path], object]] = {
    "splice": _splice,
    "exchange two files": _exchange,
    "copy of another": lambda _, path, other: path.write_bytes(other.read_bytes()),
}


def _values(tree: object, found: list | None = None) -> list:
    """(container, key) of everything in a tree."""
    found = [] if found is None else found
    items = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in list(items):
        found.append((tree, key))
        _values(value, found)
    return found


def _tree(change: Callable[[random.Random, list], object]):
    def apply(rng: random.Random, path: Path) -> None:
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            return
        if places := _values(tree):
            change(rng, places)
        path.write_text(json.dumps(tree), encoding="utf-8")

    return apply


def _another_value(rng: random.Random, places: list) -> None:
    of, key = rng.choice(places)
    deep: object = 0
    for _ in range(50):
        deep = [deep]
    of[key] = rng.choice(
        [None, True, 0, -1, 2**64, 1e308, 0.5, "", "x", "9" * 400, [], {}, [1], {"a": 1}, deep]
    )


def _drop_value(rng: random.Random, places: list) -> None:
    of, key = rng.choice(places)
    del of[key]


def _swap_values(rng: random.Random, places: list) -> None:
    (a, i), (b, j) = rng.choice(places), rng.choice(places)
    if not (a is b[j] or b is a[i]) and json.dumps([a[i], b[j]]):
        a[i], b[j] = json.loads(json.dumps(b[j])), json.loads(json.dumps(a[i]))


OF_JSON: dict[str, Callable[[random.Random, Path], object]] = {
    "another value": _tree(_another_value),
    "yet another value": _tree(_another_value),
    "drop a value": _tree(_drop_value),
    "exchange two values": _tree(_swap_values),
}
