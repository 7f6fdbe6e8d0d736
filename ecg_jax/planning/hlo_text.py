"""XLA's text of a compiled program, taken apart: computations, instructions and the types of arrays
with their layouts."""

import dataclasses
import math
import re

BITS = {"pred": 8, "token": 0, "opaque": 0}
ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^{}]*)\})?")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line; `type` is its result's, `operands` are names of other lines."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    rest: str  # attributes; of a parameter its number, of a constant its value
    root: bool


Computation = dict[str, Instruction]


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """All computations of a module by name, and the name of the entry."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for raw in text.splitlines():
        if current is None or not raw.startswith(" "):
            current = None
            if raw.endswith("{") and (match := re.match(r"(ENTRY )?%?([\w.\-]+) \(", raw)):
                current = computations.setdefault(match[2], {})
                entry = match[2] if match[1] else entry
        elif instruction := _instruction(raw.strip()):
            current[instruction.name] = instruction
    return computations, entry


def _instruction(line: str) -> Instruction | None:
    root = line.startswith("ROOT ")
    name, equals, rest = line.removeprefix("ROOT ").partition(" = ")
    if not equals:
        return None
    end = _closing(rest) if rest.startswith("(") else rest.index(" ")
    type_, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    rest = rest[len(opcode) :]
    end = _closing(rest)
    inside, rest = rest[1 : end - 1], rest[end:]
    if opcode in ("parameter", "constant"):
        return Instruction(name.lstrip("%"), type_, opcode, (), inside, root)
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    return Instruction(name.lstrip("%"), type_, opcode, operands, rest, root)


def _closing(text: str) -> int:
    """Just after the bracket that closes the one that `text` begins with."""
    depth = 0
    for match in re.finditer(r"[()]", text):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.end()
    return len(text)


def called(line: Instruction, *attributes: str) -> list[str]:
    """The computations that an instruction names under one of these attributes."""
    return [m[1] for a in attributes for m in re.finditer(rf"\b{a}=%?([\w.\-]+)", line.rest)]


def branches(line: Instruction) -> list[str]:
    if match := re.search(r"branch_computations=\{([^}]*)\}", line.rest):
        return re.findall(r"%?([\w.\-]+)", match[1])
    return called(line, "true_computation", "false_computation")


def group_size(attributes: str, devices: int) -> int:
    """Devices that take part in a collective together."""
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return len(match[1].split(","))
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]<=", attributes):
        return int(match[1])
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        size = 1
        for axis in re.findall(r"'(\w+)'", match[2]):
            size *= int(sizes[axis])
        return size
    return devices


def arrays(type_: str) -> list[str]:
    """The arrays of a type, tuples taken apart."""
    return [match[0] for match in ARRAY.finditer(type_)]


def on_chip(array: str) -> bool:
    """Whether an array lies in a TPU's memory beside the processor, and not in the large one."""
    return bool(re.search(r"S\([1-9]\d*\)", array))


def scalar(type_: str) -> bool:
    return all(match[2] == "" for match in ARRAY.finditer(type_))


def elements(type_: str) -> int:
    return sum(math.prod(map(int, filter(None, m[2].split(",")))) for m in ARRAY.finditer(type_))


def logical(type_: str) -> int:
    """Bytes of a type's elements."""
    return sum(_bytes(*match.groups(), padded=False) for match in ARRAY.finditer(type_))


def stored(type_: str, *, chip: bool) -> int:
    """Bytes in the device's memory, as they are laid out there; with `chip`, those on the chip
    too, without what its layout adds."""
    size = 0
    for match in ARRAY.finditer(type_):
        beside = on_chip(match[0])
        if chip or not beside:
            size += _bytes(*match.groups(), padded=not beside)
    return size


def _bytes(dtype: str, shape: str, layout: str | None, *, padded: bool) -> int:
    sizes = [int(size) for size in shape.split(",") if size]
    if padded and sizes and layout and (tile := re.search(r"T\(([\d,]+)\)", layout)):
        order = [int(axis) for axis in layout.partition(":")[0].split(",") if axis]
        for axis, step in zip(order, reversed(tile[1].split(",")), strict=False):
            sizes[axis] = -(-sizes[axis] // int(step)) * int(step)
    elements = 1
    for size in sizes:
        elements *= size
    bits = BITS.get(dtype)
    if bits is None:
        digits = re.search(r"\d+", dtype)
        bits = int(digits[0]) if digits else 8
    return -(-elements * bits // 8)
