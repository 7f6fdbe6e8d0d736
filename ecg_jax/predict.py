"""What a trained model says of recordings.

    python -m ecg_jax.predict RECORDING... --model FOLDER [--out DIR]

RECORDING is a file of any format (WFDB, CSV, NPY, EDF, BDF, DICOM, GE MUSE, Philips Sierra, HL7
aECG, SCP-ECG, ISHNE), a folder of them, or a pattern. Prints a table; writes `predictions.json`,
`features.npz` and a page for each recording to --out. A recording that can't be used costs its own
line. Exit status: 0, 1 where some recordings can't be used, 2 where none can.
Not a medical device, not for diagnosis.
"""

import argparse
import glob
import io
import itertools
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecg_jax.data import recording as recording_lib
from ecg_jax.errors import UserError, run_main

# What a folder is searched for; other files must be named.
SUFFIXES = (".hea", ".edf", ".bdf", ".dcm", ".xml", ".scp", ".ecg", ".csv", ".npy")
DRAWN_HZ = 1000  # a page draws a recording as it was recorded, up to this rate
LIMITS = (
    "Probabilities and thresholds hold for patients like those that the model was validated on; "
    "of other devices, hospitals and patients nothing is known.",
)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m ecg_jax.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("recordings", nargs="+", metavar="RECORDING", help="file, folder or pattern")
    made.add_argument(
        "--model", required=True, help="an exported folder, a run's folder, or hf:OWNER/NAME"
    )
    words = made.add_mutually_exclusive_group()
    words.add_argument("--classes", help='classes in your own words: "text; text"')
    words.add_argument("--prompts", type=Path, help="a TOML file of them, several wordings each")
    made.add_argument("--tasks", help="comma-separated, if not all that the model has")
    made.add_argument("--out", type=Path, help="a folder for pages, JSON and features")
    made.add_argument("--text", help="a folder with the text model, if it is not where it was")
    made.add_argument("--start", type=float, default=0.0, help="second to look from (default 0)")
    made.add_argument("--pad", action="store_true", help="fill shorter recordings up with zeros")
    made.add_argument(
        "--limb_leads",
        choices=("checked", "as_given"),
        default="checked",
        help="as_given takes leads I to aVF that contradict Einthoven's law",
    )
    stated = made.add_argument_group("what CSV and NPY do not say")
    stated.add_argument("--rate", type=float, help="Hz")
    stated.add_argument("--units", help='mV, uV, V, or the size of one step: "4.88 uV"')
    stated.add_argument("--leads", help="comma-separated, of the columns: I,II,V1")
    return made


def main() -> int:
    args = parser().parse_args()
    paths = find(args.recordings)
    from ecg_jax.inference import model as model_lib  # and JAX: not before the arguments are right
    from ecg_jax.runtime import process

    process.configure()

    model = model_lib.load(args.model, text=args.text)
    asked = _asked(model, args)
    leads = [name.strip() for name in args.leads.split(",")] if args.leads else None
    stated = {"rate": args.rate, "units": args.units, "leads": leads}
    done = Done(args, model, one=len(paths) == 1)
    for first in range(0, len(paths), model_lib.BATCH):
        read = _read(paths[first : first + model_lib.BATCH], model, args, stated, done.bad)
        if read:
            recordings, windows = (list(column) for column in zip(*read.values(), strict=True))
            encoded = model.encode(windows)
            done.add(list(read), recordings, windows, encoded, asked(recordings, windows, encoded))
    done.write()
    if not done.recordings:
        raise UserError(f"none of {len(paths)} recordings can be used")
    return 1 if done.bad else 0


def find(given: Sequence[str]) -> list[Path]:
    """The recordings that files, folders and patterns name, each once, in order.

    Raises:
      UserError: a folder or a pattern without one.
    """
    found: dict[Path, None] = {}
    for text in given:
        path = Path(text)
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file())
            chosen = [p for p in inside if p.suffix.casefold() in SUFFIXES and not _hidden(p)]
            if not chosen:
                raise UserError(f"{path}: no recording in it ({', '.join(SUFFIXES)})")
            if rest := len(inside) - len(chosen):
                print(f"{path}: {len(chosen)} recordings; {rest} other files are passed over")
        elif any(c in text for c in "*?[") and not path.exists():
            chosen = [Path(p) for p in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207
            if not chosen:
                raise UserError(f"{text}: no file fits the pattern")
        else:
            chosen = [path]
        found |= dict.fromkeys(chosen)
    return list(found)


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _read(
    paths: Sequence[Path], model: Any, args: argparse.Namespace, stated: dict, bad: dict[str, str]
) -> dict[Path, tuple[Any, Any]]:
    """path -> (recording, window) of those that can be used; the others' lines go into `bad`."""
    read = {}
    for path in paths:
        try:
            plain = path.suffix.casefold() in (".csv", ".tsv", ".txt", ".npy")
            recording = recording_lib.read(
                path, limb_leads=args.limb_leads, **(stated if plain else {})
            )
            (window,) = model.windows([recording], args.start, args.pad)
        except UserError as error:
            bad[str(path)] = " ".join(str(error).split())
            print(f"error: {bad[str(path)]}", file=sys.stderr, flush=True)
            continue
        read[path] = recording, window
    return read


def _asked(model: Any, args: argparse.Namespace) -> Callable[[list, list, Any], list[list[Any]]]:
    """(recordings, windows, encoded) -> scores of each recording, of what was asked for.

    Raises:
      UserError: an unknown task, or classes that can't be embedded.
    """
    if args.classes is not None or args.prompts:
        from ecg_jax.inference import words

        text = args.classes or ""
        wordings = words.from_file(args.prompts) if args.prompts else words.from_text(text)
        embedded = model.embed_classes(wordings)
        return lambda recordings, windows, encoded: [
            [s] for s in model.in_words(recordings, windows, encoded, list(wordings), embedded)
        ]
    tasks = [task for task in (args.tasks or "").split(",") if task]
    known = {head.task for head in model.heads}
    if unknown := [task for task in tasks if task not in known]:
        raise UserError(
            f"--tasks {unknown[0]}: this model has {', '.join(sorted(known)) or 'none'}"
        )
    heads = [head for head in model.heads if not tasks or head.task in tasks]
    if not heads and not args.out:  # features alone can be had
        model.head()  # says why there are none

    def by_heads(recordings: list, windows: list, encoded: Any) -> list[list[Any]]:
        of = [model.scores(recordings, windows, encoded, head) for head in heads]
        return [[scores[i] for scores in of] for i in range(len(recordings))]

    return by_heads


class Done:
    """What has been predicted, shown and written as it comes."""

    def __init__(self, args: argparse.Namespace, model: Any, *, one: bool):
        self.args, self.model, self.one = args, model, one
        self.bad: dict[str, str] = {}
        self.recordings: list[dict[str, Any]] = []
        self.features: list[np.ndarray] = []
        self.embeddings: list[np.ndarray] = []
        self._pages: set[str] = set()

    def add(
        self, paths: list[Path], recordings: list, windows: list, encoded: Any, found: list
    ) -> None:
        """Shows a batch's scores, and writes its pages."""
        self.features.append(encoded.features)
        self.embeddings.append(encoded.embedding)
        for path, recording, window, scores in zip(paths, recordings, windows, found, strict=True):
            page = self._page(recording, window, scores) if self.args.out else None
            self._show(path, scores)
            self.recordings.append(
                {
                    "path": str(path),
                    "format": recording.format,
                    "rate_hz": recording.rate,
                    "seconds": recording.seconds,
                    "missing": recording.missing,
                    "derived": list(recording.derived),
                    "notes": self.model.notes(recording, window),
                    "page": page,
                    "scores": [s.to_json() for s in scores],
                }
            )

    def _show(self, path: Path, found: list[Any]) -> None:
        """Everything of one recording; of many, the likeliest classes in a line."""
        for scores in found:
            if self.one:
                print(scores, end="\n\n")
                continue
            most = []
            for k in scores.order[:3]:
                p, said = float(scores.probability[k]), {True: " yes", False: " no", None: ""}
                number = scores.score[k] if p != p else p
                most.append(f"{scores.classes[k]} {number:.2f}{said[scores.yes[k]]}")
            print(f"{path}  {scores.task} {scores.protocol}  {', '.join(most)}", flush=True)

    def _page(self, recording: Any, window: Any, found: list[Any]) -> str:
        """Writes a recording's page; its name."""
        from ecg_jax.report import record_page
        from ecg_jax.runtime.files import write_whole

        rate, drawn = self.model.rate, window
        if recording.rate == round(recording.rate) and recording.rate <= DRAWN_HZ:
            rate = round(recording.rate)
            drawn = recording.window(rate, self.model.seconds, self.args.start, pad=True)
        facts = [
            ("format", recording.format),
            ("recorded", f"{recording.seconds:g} s at {recording.rate:g} Hz"),
            ("leads", ", ".join(recording.leads)),
            ("missing", ", ".join(recording.missing) or "none"),
            ("for the model", "; ".join(self.model.notes(recording, window)) or "as it is"),
        ]
        if recording.statements:
            facts.append(("the file says", "; ".join(recording.statements)))
        name = self._name(recording.name)
        page = record_page.render(
            recording.name, drawn.ecg, recording.lead_mask, rate, facts, found, LIMITS
        )
        write_whole(self.args.out / name, page.encode())
        return name

    def _name(self, name: str) -> str:
        """A file name for a recording's page that no other has."""
        plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip(".") or "recording"
        number = itertools.count(2)
        chosen = f"{plain}.html"
        while chosen in self._pages:
            chosen = f"{plain}-{next(number)}.html"
        self._pages.add(chosen)
        return chosen

    def write(self) -> None:
        """predictions.json and features.npz."""
        from ecg_jax.inference.scores import NOT_A_DEVICE
        from ecg_jax.runtime import files

        if not self.one:
            print(f"{len(self.recordings)} recordings, {len(self.bad)} can't be used")
        if self.recordings:
            print(NOT_A_DEVICE)
        if not self.args.out:
            return
        out = self.args.out
        told = json.dumps(self._told(NOT_A_DEVICE), indent=2, ensure_ascii=False)
        files.write_whole(out / "predictions.json", (told + "\n").encode())
        if self.recordings:
            packed = io.BytesIO()
            np.savez_compressed(
                packed,
                path=np.array([item["path"] for item in self.recordings]),
                features=np.concatenate(self.features),
                embedding=np.concatenate(self.embeddings),
            )
            files.write_whole(out / "features.npz", packed.getvalue())
        print(f"written: {out}")

    def _told(self, limits: str) -> dict[str, Any]:
        described = self.model.exported.config
        about = {name: described[name] for name in ("method", "input", "provenance")}
        return {
            "limits": limits,
            "model": {"folder": self.args.model, **about},
            "recordings": self.recordings,
            "errors": self.bad,
        }


if __name__ == "__main__":
    run_main(main)
