"""What a compiled program does, counted in its text: kernels, bytes through memory, collectives.

The text (`compiled.as_text()`) is there for every backend, and says the same of each; XLA's own
`cost_analysis` has no figures for a GPU.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

from ecg_jax.planning.hlo_text import (
    Computation,
    Instruction,
    arrays,
    branches,
    called,
    elements,
    group_size,
    logical,
    on_chip,
    parse,
    scalar,
    stored,
)

# Names for what is there already, or for a place in memory: no kernel, no bytes.
NAMES = {
    "bitcast",
    "tuple",
    "parameter",
    "constant",
    "get-tuple-element",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
    "domain",
    "add-dependency",
}
BUFFERS = {"AllocateBuffer", "ConcatBitcast"}  # custom calls of a TPU program that are names, too
TRANSFERS = {"copy-start", "slice-start"}  # a TPU's, between its memories: bytes, but no kernel
PARTS = {"slice", "dynamic-slice", "gather"}  # they read what they yield, not all of the operand
CALLS = {"call", "async-start"}
BEHIND = "calls=%async_collective_fusion"  # a TPU's fusion behind which a collective goes on
COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)


class Collective(NamedTuple):
    """Of each device and step: `bytes` is what is exchanged, `sent` what a device must send of it
    where the devices pass parts on in a ring; `group` devices take part, `times` in a step."""

    kind: str
    group: int
    bytes: int
    sent: float
    times: float


class Counts(NamedTuple):
    """Of one device and one step; `whole` is what `bytes` would be if a TPU kept nothing on the
    chip, and the same on other devices."""

    kernels: float
    bytes: float
    whole: float
    collectives: tuple[Collective, ...]


def count(text: str, *, steps: int = 1, devices: int = 1) -> Counts:
    """Counts a program that makes `steps` updates on each of `devices`.

    A kernel is an instruction that is not a name (bitcast, tuple, ...); its bytes are those of its
    operands and results, as they lie in the device's memory: padded where the layout pads, and none
    where a TPU keeps them on the chip. A gather or a slice reads what it yields. A loop's body
    counts as often as it runs; where the text does not say how often, the program's largest loop
    runs once a step.
    """
    computations, entry = parse(text)
    counts = _Counter(computations, entry, steps, devices, chip=False).counts()
    if "S(1)" not in text:
        return counts
    whole = _Counter(computations, entry, steps, devices, chip=True).counts()
    return counts._replace(whole=whole.bytes)


def of_step(text: str, *, devices: int = 1) -> Counts:
    """Counts a step of several: the body of the program's largest loop, without what a call does
    before and after them."""
    computations, entry = parse(text)
    both = []
    for chip in (False, True):
        counter = _Counter(computations, entry, 1, devices, chip=chip)
        both.append(counter.counts(counter.longest(entry)))
    return both[0]._replace(whole=both[1].bytes)


def by_kernel(text: str, *, steps: int = 1) -> dict[str, float]:
    """Bytes of a step by the name of the instruction, as `count` counts them."""
    computations, entry = parse(text)
    counter = _Counter(computations, entry, steps, 1, chip=False)
    found: dict[str, float] = {}

    def add(name: str, times: float) -> None:
        for line in computations[name].values():
            if line.opcode == "while":
                add(called(line, "body")[0], times * (counter.trips(line) or 1))
            elif line.opcode in CALLS and (names := called(line, "to_apply", "calls")):
                add(names[0], times)
            elif moved := counter.line(computations[name], line)[1]:
                found[line.name] = found.get(line.name, 0.0) + times * moved / steps

    add(entry, 1.0)
    return found


class _Counter:
    """Counts a parsed program; with `chip`, as if nothing were kept on the chip."""

    def __init__(
        self,
        computations: dict[str, Computation],
        entry: str,
        steps: int,
        devices: int,
        *,
        chip: bool,
    ):
        self.computations, self.entry = computations, entry
        self.steps, self.devices, self.chip = steps, devices, chip
        self.seen: set[str] = set()

    def counts(self, computation: str = "") -> Counts:
        kernels, moved, found = self._of(computation or self.entry)
        merged: dict[Collective, float] = {}
        for collective, times in found:
            merged[collective] = merged.get(collective, 0) + times
        each = [key._replace(times=times / self.steps) for key, times in merged.items()]
        each.sort(key=lambda c: -c.sent * c.times)
        moved /= self.steps
        return Counts(kernels / self.steps, moved, moved, tuple(each))

    def longest(self, name: str) -> str:
        """The body of the loop that moves most of those in a computation."""
        loops = (x for x in self.computations[name].values() if x.opcode == "while")
        bodies = [called(loop, "body")[0] for loop in loops]
        return max(bodies, key=lambda body: self._of(body)[1])

    @functools.cache  # noqa: B019  (a counter lives as long as one count)
    def _of(self, name: str) -> tuple[float, float, list]:
        """(kernels, bytes, [(collective, times)]) of a computation and what it calls."""
        kernels, moved, found = 0.0, 0.0, []
        loops = []
        for line in self.computations[name].values():
            if line.opcode == "while":
                loops.append((line, self._of(called(line, "body")[0])))
                continue
            if line.opcode == "conditional":
                inner = max((self._of(branch) for branch in branches(line)), key=lambda c: c[1])
            elif line.opcode in CALLS and (names := called(line, "to_apply", "calls")):
                inner = self._of(names[0])
            else:
                inner = self.line(self.computations[name], line)
            kernels, moved, found = kernels + inner[0], moved + inner[1], found + inner[2]
        longest = max(loops, key=lambda loop: loop[1][1], default=None)
        for loop in loops:
            unknown = self.steps if name == self.entry and loop is longest else 1
            times, inner = self.trips(loop[0]) or unknown, loop[1]
            kernels, moved = kernels + times * inner[0], moved + times * inner[1]
            found = found + [(collective, times * n) for collective, n in inner[2]]
        return kernels, moved, found

    def trips(self, loop: Instruction) -> int | None:
        """How often a loop's body runs: as the compiler notes it, or as its condition says."""
        if match := re.search(r'known_trip_count"?\s*[:=]\s*\{"?n"?\s*:\s*"?(\d+)', loop.rest):
            return int(match[1])
        lines = list(self.computations[called(loop, "condition")[0]].values())
        lines += [
            x for f in lines for c in called(f, "calls") for x in self.computations[c].values()
        ]
        bounds = [x.rest for x in lines if x.opcode == "constant" and scalar(x.type)]
        below = any("direction=LT" in x.rest for x in lines if x.opcode == "compare")
        return int(bounds[0]) if below and len(bounds) == 1 and bounds[0].isdigit() else None

    def line(self, lines: Computation, line: Instruction) -> tuple[float, float, list]:
        op = line.opcode
        if op in NAMES or op.endswith("-done") or op.endswith("-update"):
            return 0, 0, []
        if op == "custom-call" and any(f'"{name}"' in line.rest for name in BUFFERS):
            return 0, 0, []
        operands = [lines[name].type for name in line.operands if name in lines]
        kind = op.removesuffix("-start")
        if kind in COLLECTIVES:
            found = [(self._collective(kind, line, operands), 1.0)]
            return 1, 2.0 * sum(map(self._stored, operands)), found
        if op in TRANSFERS and self.chip:
            return 0, 0, []
        if op in TRANSFERS:
            results = arrays(line.type)
            # ((source, ...), result, ...) or (result, source, ...): either way the smaller moves.
            sizes = [logical(array) for array in results[:2]]
            least = min(sizes)
            return 0, float(sum(least for a in results[:2] if not on_chip(a))), []
        if scalar(line.type) and all(map(scalar, operands)) and op != "fusion":
            return 0, 0, []
        found = self._within(line) if op == "fusion" else []
        if BEHIND in line.rest:
            line, operands = without_passed(line, operands)
        return 1, self._moved(lines, line, operands), found

    def _within(self, line: Instruction) -> list[tuple[Collective, float]]:
        """The collectives of a fusion: a TPU's sum of which each device keeps a part is one. One
        that goes on behind several fusions is in each of them, by the same channel: the first
        counts."""
        inner = self.computations[called(line, "calls")[0]]
        found = []
        for one in inner.values():
            if (kind := one.opcode.removesuffix("-start")) in COLLECTIVES:
                if channel := re.search(r"channel_id=(\d+)", one.rest):
                    if channel[1] in self.seen:
                        continue
                    self.seen.add(channel[1])
                kept = any(x.root and x.opcode in PARTS for x in inner.values())
                kind = "reduce-scatter" if kind == "all-reduce" and kept else kind
                operands = [inner[name].type for name in one.operands]
                found.append((self._collective(kind, one, operands), 1.0))
        return found

    def _stored(self, type_: str) -> int:
        return stored(type_, chip=self.chip)

    def _moved(self, lines: Computation, line: Instruction, operands: list[str]) -> float:
        results = arrays(line.type)
        if line.opcode == "custom-call" and len(results) > 1 and results[-1].startswith("u8["):
            results = results[:-1]  # cuDNN's and cuBLAS's scratch, as large as they may ask for
        written = float(sum(map(self._stored, results)))
        if line.opcode == "fusion":
            return self._fused(self.computations[called(line, "calls")[0]], operands, written)
        if line.opcode in PARTS:
            return 2 * written
        if line.opcode == "dynamic-update-slice":
            return 2.0 * self._stored(operands[1])
        return written + sum(map(self._stored, operands))

    def _fused(self, inner: Computation, operands: list[str], written: float) -> float:
        """Bytes of a fusion: of a parameter that is only sliced or gathered, the parts; of one
        that is updated in place, the update."""
        users: dict[str, list[Instruction]] = {}
        for line in inner.values():
            for name in line.operands:
                users.setdefault(name, []).append(line)

        def through(name: str) -> Iterator[tuple[Instruction, bool]]:
            """What reads a value, bitcasts looked through; and whether as its first operand."""
            for user in users.get(name, []):
                if user.opcode in ("bitcast", "reshape", "copy", "transpose", "convert"):
                    yield from through(user.name)
                else:
                    yield user, user.operands[0] == name

        read = 0.0
        for line in inner.values():
            if line.opcode != "parameter":
                continue
            outer = operands[int(line.rest)] if line.rest.isdigit() else line.type
            whole = float(self._stored(outer))
            uses = list(through(line.name))
            ways = {user.opcode if first else "" for user, first in uses}
            if uses and ways <= PARTS:
                # Of the operand's own type; what reads it may be of another.
                share = sum(elements(user.type) for user, _ in uses) / elements(line.type)
                read += min(whole, share * logical(line.type)) if whole else 0.0
            elif ways == {"dynamic-update-slice"}:
                update = sum(logical(inner[user.operands[1]].type) for user, _ in uses)
                read, written = read + update, written - whole + update
            else:
                read += whole
        return read + max(written, 0.0)

    def _collective(self, kind: str, line: Instruction, operands: list[str]) -> Collective:
        n = group_size(line.rest, self.devices)
        size = sum(logical(array) for operand in operands for array in arrays(operand))
        if kind == "all-gather":
            size *= n
        share = {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1.0}.get(kind, (n - 1) / n)
        return Collective(kind, n, size, share * size, 1.0)


def without_passed(line: Instruction, operands: list[str]) -> tuple[Instruction, list[str]]:
    """A fusion without the arrays of the collective that goes on behind it: it hands them on."""
    pairs = re.search(r"output_to_operand_aliasing=\{(.*?\})\}?, calls", line.rest)
    passed = re.findall(r"\{(\d+)\}: \((\d+)", pairs[1] if pairs else "")
    outputs, inputs = ({int(pair[side]) for pair in passed} for side in (0, 1))
    kept = [array for i, array in enumerate(arrays(line.type)) if i not in outputs]
    line = dataclasses.replace(line, type=f"({', '.join(kept)})")
    return line, ["token[]" if i in inputs else type_ for i, type_ in enumerate(operands)]
