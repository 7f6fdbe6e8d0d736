"""Augmentations, drawn on an ECG.

    python -m ecg_jax.tools.show_augment --names vcg,wander [--out FOLDER]

One picture (SVG) per augmentation: leads II, V1 and V5 before and after it. `--config FILE[:ARGS]`
draws those of a config with its options, on its data; `--names` those named, with their defaults,
`jigsaw` and `adjacent`.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ecg_jax.data import augment, normalize, records
from ecg_jax.data.bounds import within
from ecg_jax.data.leads import LEADS
from ecg_jax.data.records import Records
from ecg_jax.errors import UserError, run_main
from ecg_jax.report.chart import Panel, axes, line, span, text, ticks
from ecg_jax.report.markup import Markup, element, join, svg
from ecg_jax.run import config as config_lib
from ecg_jax.runtime import process, storage
from ecg_jax.runtime.files import write_whole

SHOWN = ("II", "V1", "V5")
DATA = {
    "data_dir": "data",
    "dataset": "simulated",
    "rate": 100,
    "seconds": 10.0,
    "normalize": "millivolt",
}
PIECES = 5  # of the jigsaw that is drawn
CUT = 0.1  # seconds left blank where adjacent segments meet, so that the cut is seen
UNITS = {"millivolt": "mV", "record": "SD of the record", "lead": "SD of the lead"}

_WIDTH, _LEFT, _TOP, _ROW, _GAP = 900, 56, 44, 140, 14
_STYLE = """
svg { background: #fff; font: 12px system-ui, sans-serif; }
text { fill: #17202a; }
.name { font-size: 15px; font-weight: 600; }
.lead { font-weight: 600; }
.soft { fill: #4d5966; }
.grid { fill: none; stroke: #dde2e7; stroke-width: .7; }
.before { fill: none; stroke: #f4b183; stroke-width: 2.6; stroke-linejoin: round; }
.after { fill: none; stroke: #0a4f8a; stroke-width: 1; stroke-linejoin: round; }
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m ecg_jax.tools.show_augment"
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--config", help="FILE[:ARGS] whose augmentations are drawn")
    which.add_argument("--names", help="comma-separated, with their default options")
    parser.add_argument("--data_dir", help=f"where prepared data lie (default {DATA['data_dir']})")
    parser.add_argument("--dataset", help=f"default {DATA['dataset']}, or the config's")
    parser.add_argument("--rate", type=int, help=f"Hz (default {DATA['rate']}, or the config's)")
    parser.add_argument("--seconds", type=float, help="of the record, from its start (default 10)")
    parser.add_argument("--split", default="test", help="default test")
    parser.add_argument("--record", help="its id (default: the first of the split)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (default 0)")
    help_out = "a folder (default: this one)"
    parser.add_argument("--out", type=storage.expanded, default=Path(), help=help_out)
    args = parser.parse_args()
    process.configure()
    data, steps = DATA, [{"name": name} for name in (args.names or "").split(",")]
    if args.config:
        data, steps = _of_config(args.config)
    given = {name: getattr(args, name, None) for name in data}
    data = data | {name: value for name, value in given.items() if value is not None}
    within("--seconds", data["seconds"], 1)
    for step in steps:  # a wrong one is found before the data are read
        _applied(step, data["rate"])
        augment.length([step], data["seconds"])
    somewhere = args.data_dir or args.config or args.dataset or args.record
    record = _record(data, args.split, args.record, simulated=not somewhere)
    for name, picture in pictures(steps, record, data["normalize"], args.seed).items():
        path = args.out / f"augment_{name}.svg"
        write_whole(path, picture.encode())
        print(f"written: {path}")


def pictures(
    steps: list[dict[str, Any]], record: Records, kind: str, seed: int
) -> dict[str, Markup]:
    """Each augmentation's picture by its name; a name that comes again gets a number.

    Args:
      steps: as `augment.compose` takes them; each is applied by itself.
      record: one record.
      kind: how it is normalised before.
      seed: of the draws.
    """
    mask = jnp.asarray(record.lead_mask)
    before = normalize.normalize(jnp.asarray(record.ecg), mask, kind)
    drawn, seen = {}, Counter()
    for step in steps:
        after = jax.jit(_applied(step, record.rate))(jax.random.key(seed), before, mask)
        seen[step["name"]] += 1
        name = step["name"] + (f"_{n}" if (n := seen[step["name"]]) > 1 else "")
        caption = f"{record.dataset} record {record.record_id[0]}, {record.rate} Hz, seed {seed}"
        drawn[name] = figure(
            _call(step), caption, np.asarray(before[0]), np.asarray(after[0]), record, UNITS[kind]
        )
    return drawn


def figure(
    name: str, caption: str, before: np.ndarray, after: np.ndarray, record: Records, unit: str
) -> Markup:
    """The picture of one augmentation.

    Args:
      name, caption: what was done, and to what.
      before, after: float [T, 12], in `unit`.
      record: one record, for its rate and leads.
    """
    height = _TOP + len(SHOWN) * (_ROW + _GAP) + 26
    title = f"{name}, before and after: {caption}"
    size = dict(width=_WIDTH, height=height, xmlns="http://www.w3.org/2000/svg")
    return svg(
        title,
        _WIDTH,
        height,
        element("style", Markup(_STYLE)),
        element("rect", width=_WIDTH, height=height, fill="#fff"),
        text(name, _LEFT, 20, class_="name"),
        text(caption, _LEFT, 36, class_="soft"),
        *_legend(),
        *(_lead(row, before, after, record, unit) for row in range(len(SHOWN))),
        **size,
    )


def _lead(row: int, before: np.ndarray, after: np.ndarray, record: Records, unit: str) -> Markup:
    """One lead's panel; the lowest has the time axis."""
    c = LEADS.index(SHOWN[row])
    seconds, end = np.arange(len(before)) / record.rate, len(before) / record.rate
    low, high = span(np.stack([before[:, c], after[:, c]]), least=0.1)
    top, last = _TOP + row * (_ROW + _GAP), row == len(SHOWN) - 1
    panel = Panel(_LEFT, top, _WIDTH - _LEFT - 12, _ROW, (0, end), (low, high))
    at = ticks(0, end, 10), ticks(low, high, 4)
    parts = [axes(panel, *at, x_label="s" if last else "", x_names=last)]
    turned = f"rotate(-90 14 {top + _ROW / 2:g})"
    parts.append(text(unit, 14, top + _ROW / 2, anchor="middle", transform=turned))
    there = bool(record.lead_mask[0, c])
    if there:
        parts.append(line(panel, seconds, before[:, c], "before"))
        parts.append(line(panel, seconds, after[:, c], "after"))
    name = SHOWN[row] if there else f"{SHOWN[row]}: not recorded"
    parts.append(text(name, _LEFT + 5, top + 14, class_="lead"))
    return join(parts)


def _applied(
    step: Mapping[str, Any], rate: int
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """(key, ecg [B, T, 12], mask) -> the ECG after one augmentation.

    Pieces of a jigsaw and adjacent segments stand one after the other, with NaN between them; what
    is shorter than the record stands at its start, with NaN behind.
    """
    if step["name"] not in ("jigsaw", "adjacent"):
        apply = augment.compose([step], rate)

        def padded(key, ecg, mask):
            after, _ = apply(key, ecg, mask)
            rest = ((0, 0), (0, ecg.shape[1] - after.shape[1]), (0, 0))
            return jnp.pad(after, rest, constant_values=jnp.nan)

        return padded

    def cut(key, ecg):
        if step["name"] == "jigsaw":
            return augment.jigsaw(key, ecg, PIECES), ecg.shape[1] // PIECES
        segments = augment.adjacent(ecg, rate=rate)
        return segments[:, :, : -round(CUT * rate)], segments.shape[2]

    def laid_out(key, ecg, mask):
        B, T, C = ecg.shape
        pieces, room = cut(key, ecg)
        gap = ((0, 0), (0, 0), (0, room - pieces.shape[2]), (0, 0))
        row = jnp.pad(pieces, gap, constant_values=jnp.nan).reshape(B, -1, C)
        return jnp.pad(row, ((0, 0), (0, T - row.shape[1]), (0, 0)), constant_values=jnp.nan)

    return laid_out


def _legend() -> list[Markup]:
    drawn = []
    for name, x in (("before", _WIDTH - 150), ("after", _WIDTH - 66)):
        stroke = element("path", d=f"M{x} 16h22", class_=name)
        drawn.append(join([stroke, text(name, x + 27, 20)]))
    return drawn


def _call(step: Mapping[str, Any]) -> str:
    """`{"name": "scale", "low": 0.5}` as `scale(low=0.5)`."""
    options = ", ".join(f"{key}={value}" for key, value in step.items() if key != "name")
    return f"{step['name']}({options})" if options else step["name"]


def _of_config(file: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a config says of the data, and its augmentations."""
    usage = "--config FILE[:ARGS]"
    config = config_lib.parse(["show_augment", f"--config={file}", "--workdir=."], usage).config
    if not config.augment:
        raise UserError(f"{file} has no augmentation: name some with --names")
    return {name: config[name] for name in DATA}, [dict(step) for step in config.augment]


def _record(
    data: Mapping[str, Any], split: str, record_id: str | None, *, simulated: bool
) -> Records:
    """One record of a prepared split, the first if no id is given; if none is prepared and
    `simulated`, one that is made for this."""
    source = (data["data_dir"], data["dataset"], data["rate"], split)
    try:
        loaded = records.load(*source, seconds=data["seconds"])
    except UserError:
        if not simulated:
            raise
        return _simulated(data["rate"], data["seconds"])
    if record_id is None:
        return loaded.take([0])
    rows = np.flatnonzero(loaded.record_id == record_id)
    if not len(rows):
        some = ", ".join(loaded.record_id[:3])
        raise UserError(f"no record {record_id!r} in {loaded.dataset} {split}: it has {some}, ...")
    return loaded.take(rows[:1])


def _simulated(rate: int, seconds: float) -> Records:
    """A normal ECG of the simulator."""
    from tfds_builders.simulated.simulator import simulate  # SciPy with it, which is slow to import

    drawn = simulate(
        np.random.default_rng(0), findings=["NORM", "SR"], rate_hz=rate, seconds=max(seconds, 6)
    )
    ecg = drawn.ecg_uv[None, : round(seconds * rate)]
    return Records(
        dataset="simulated",
        split="for this picture",
        rate=rate,
        ecg=ecg,
        length=np.array([ecg.shape[1]], np.int32),
        signal_sha256=np.zeros((1, 32), np.uint8),
        lead_mask=np.ones((1, len(LEADS)), bool),
        record_id=np.array(["1"]),
        patient_id=np.array(["1"]),
        report=[""],
        person=np.full((1, 2), np.nan, np.float32),
        labels={},
        classes={},
        signals="simulated",
    )


if __name__ == "__main__":
    run_main(main)
