"""An estimate as text."""

import math

from ecg_jax.data import augment
from ecg_jax.planning.estimate import Estimate

NAMES = {
    "arithmetic": "arithmetic",
    "memory": "bytes through memory",
    "interconnect": "bytes between devices",
}
COUNTS = tuple(2**i for i in range(11))


def text(e: Estimate) -> str:
    """All of it, for people."""
    blocks = [_head(e), _memory(e), _work(e), _collectives(e), _bound(e), _scaling(e), _notes(e)]
    return "\n\n".join(filter(None, blocks))


def _head(e: Estimate) -> str:
    chip, c = e.target.chip, e.config
    seen = augment.length(c.augment, c.seconds)
    cropped = f" in stretches of {seen:g} s" if seen < c.seconds else ""
    return (
        f"{c.method} on {e.target.devices} x {chip.title}: batch {e.batch:,} "
        f"({e.per_device:,g} a device), 12 x {round(c.seconds * c.rate):,} samples{cropped}, "
        f"{c.model.dtype}, {e.length} steps a dispatch\n"
        "Bounds from the compiled program and the data sheet, not measurements: compiled in "
        f"{e.compile_seconds:,.0f} s, not run.\n"
        f"Data sheet: {_si(chip.memory)}B, {_si(chip.bandwidth)}B/s, "
        f"{_si(chip.flops[c.model.dtype])}FLOP/s in {c.model.dtype}, {_si(chip.link)}B/s of links "
        f"({chip.source})"
    )


def _memory(e: Estimate) -> str:
    m = e.memory
    rows = [
        ("parameters, statistics, their mean", m.parameters),
        ("optimiser", m.optimizer),
        ("what the method remembers", m.memory),
        ("records and tables" + (" of a streamed batch" if e.config.stream else ""), m.split),
        ("temporaries and program", m.temporaries),
        ("added by the layout", m.padding),
    ]
    lines = [f"  {name:<42}{_gb(size):>12}" for name, size in rows if size]
    whose = " (JAX's share of it)" if e.target.chip.platform == "gpu" else ""
    total = f"  {'of ' + _gb(m.capacity) + whose:<42}{_gb(m.total):>12}  {m.total / m.capacity:.1%}"
    return "\n".join(["Memory of each device: fits", *lines, total])


def _work(e: Estimate) -> str:
    c, per_device = e.counts, e.per_device
    lines = [
        f"  arithmetic {_si(e.flops_model)}FLOP a record (products and convolutions, forward and "
        f"backward), {_si(e.flops_program * e.batch / e.target.devices)}FLOP a step and device",
        f"  memory     {_si(c.bytes / per_device)}B a record, {_si(c.bytes)}B a step and device, "
        f"in {c.kernels:,.0f} kernels",
    ]
    if e.flops_program > 1.01 * e.flops_model:
        more = e.flops_program / e.flops_model - 1
        lines[0] += f" ({more:.0%} above the definition)"
    if c.whole > c.bytes:
        lines.append(
            f"             ({_si(c.whole / per_device)}B if nothing were kept on the chip)"
        )
    if e.xla:
        lines.append(
            f"  XLA's own count of a step and device: {_si(e.xla[0])}FLOP, {_si(e.xla[1])}B (with "
            "what is kept on the chip, a loop inside the step once)"
        )
    return "\n".join(["A step", *lines])


def _collectives(e: Estimate) -> str:
    if not e.counts.collectives:
        return ""
    kinds: dict[str, list[float]] = {}
    for c in e.counts.collectives:
        row = kinds.setdefault(c.kind, [0, 0, 0])
        row[0] += c.times
        row[1] += c.times * c.bytes
        row[2] += c.times * c.sent
    lines = [
        f"  {kind:<20}{times:>6,.0f}  {_si(size)}B, of which each device sends {_si(sent)}B"
        for kind, (times, size, sent) in kinds.items()
    ]
    return "\n".join(["Collectives of a step", *lines])


def _bound(e: Estimate) -> str:
    b, rate = e.bound, e.records_per_second
    lines = [
        f"  {words:<24}{getattr(b, name) * 1e3:>9.3f} ms a step"
        + ("  <- the limit" if name == b.limited_by else "")
        for name, words in NAMES.items()
    ]
    epoch = e.steps * e.batch / rate
    lines.append(
        f"  {rate:,.0f} records/s; an epoch of {e.steps * e.batch:,} records {_time(epoch)}, "
        f"the run of {e.config.epochs:,} epochs {_time(e.config.epochs * epoch)} (training alone)"
    )
    return "\n".join(["At best", *lines])


def _scaling(e: Estimate) -> str:
    """The same batch on other numbers of these devices."""
    if not e.grows:
        return (
            f"Other numbers of devices are not worked out: with {e.per_device:g} records on each, "
            "most of what a step moves is its state. Name them as --target."
        )
    rows = []
    slices = {math.prod(map(int, name.split("x"))) for name in e.target.chip.slices}
    counts = slices or {n for n in COUNTS if n <= 8 * e.target.devices}
    for devices in sorted(counts | {e.target.devices}):
        if e.batch % devices:
            continue
        b = e.bound if devices == e.target.devices else e.on(devices)
        mark = "  compiled" if devices == e.target.devices else ""
        rows.append(
            f"  {devices:>7}{e.batch / devices:>12,g}{b.arithmetic * 1e3:>14.3f}"
            f"{b.memory * 1e3:>11.3f}{b.interconnect * 1e3:>15.3f}"
            f"{e.batch / b.seconds:>13,.0f}  {b.limited_by}{mark}"
        )
    head = "  devices  records each  arithmetic, ms  memory, ms  interconnect, ms  records/s"
    title = f"The same batch of {e.batch:,} on other numbers of devices, worked out from this one"
    return "\n".join([title, head, *rows])


def _notes(e: Estimate) -> str:
    notes = [
        "Not in the bounds: latency (of each kernel and collective), what a cache saves, "
        "evaluation, checkpoints, reading the data.",
        "FLOPs are counted in the program before XLA, bytes and kernels in XLA's; a loop of "
        f"{e.length} {'step' if e.length == 1 else 'steps'} is compiled once, as training does.",
    ]
    if e.target.chip.platform == "gpu":
        notes.append(
            "cuDNN's algorithms are chosen on the card; their scratch memory is not counted. JAX "
            "uses 75 % of a GPU's memory unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise."
        )
    return "\n".join(notes)


def _si(x: float) -> str:
    """1.23 G, with a space before the unit's prefix."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if x >= size:
            return f"{x / size:.3g} {prefix}"
    return f"{x:.3g} "


def _gb(size: float) -> str:
    return f"{size / 1e9:,.3f} GB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.3g} s"
    return f"{seconds / 60:,.3g} min" if seconds < 7200 else f"{seconds / 3600:,.3g} h"
