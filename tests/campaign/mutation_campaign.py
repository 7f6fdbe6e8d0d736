"""Mutates what is read, again and again, and looks at what comes of it.

    PYTHONPATH=.:tests python tests/campaign/mutation_campaign.py --count 10000 --log FILE

Each mutation is one of `mutations.py` on one reader of `readers.py`, drawn by its number alone. It
must end in one line (of a `UserError` or a builder's errors, each record on a line of its own), or
in a result that is equal to the unmutated one in everything but what the mutation says. Anything
else is a finding, and the number makes it again: `--only NUMBER`.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from campaign.mutations import Mutation, mutate
from campaign.reader import Reader, Result, clone, files_of
from campaign.readers import readers
from ecg_jax.errors import UserError
from tfds_builders.build import BadRecordsError
from tfds_builders.errors import RecordError, SourceError

SEED = 0
LONGEST = 3000  # characters of a line


class Outcome(NamedTuple):
    number: int
    reader: str
    mutation: Mutation
    what: str  # refused, equal, as said, or a finding
    line: str


class Campaign:
    """Readers with their folders, each made when it is first wanted."""

    def __init__(self, folder: Path):
        self._folder, self._made = folder, {}
        turns = readers()
        most = max(reader.skip for reader in turns)
        self._turns = [r for turn in range(most) for r in turns if turn % r.skip == 0]

    def _unmutated(self, reader: Reader) -> tuple[Path, Result]:
        if reader.name not in self._made:
            place = self._folder / f"whole{len(self._made)}"
            place.mkdir()
            reader.make(place)
            self._made[reader.name] = place, reader.read(place)
        return self._made[reader.name]

    def run(self, number: int) -> Outcome:
        """One mutation, which follows from its number."""
        reader = self._turns[number % len(self._turns)]
        whole, expected = self._unmutated(reader)
        scratch = self._folder / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        clone(whole, scratch)
        rng = random.Random(f"{SEED} {number}")
        mutation = mutate(rng, scratch, files_of(reader, scratch))
        what, line = judged(reader, scratch, mutation, expected)
        return Outcome(number, reader.name, mutation, what, line.replace(f"{scratch}/", ""))


def judged(reader: Reader, folder: Path, mutation: Mutation, expected: Result) -> tuple[str, str]:
    """(what, line) of an `Outcome`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = reader.read(folder)
    except BadRecordsError as error:
        lines = str(error).split("\n")
        right = len(lines) == 1 + len(error.bad) and all(error.bad.values())
        return ("refused" if right else "finding: lines"), str(error)[:LONGEST]
    except (UserError, RecordError, SourceError) as error:
        line = str(error)
        right = line.strip() and "\n" not in line and len(line) < LONGEST
        return ("refused" if right else "finding: not one line"), line[:LONGEST]
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return "finding: traceback", f"{where}: {type(error).__name__}: {error}"[:400]
    differ = sorted(k for k in expected | result if expected.get(k) != result.get(k))
    if not differ:
        return "equal", ""
    groups, free = reader.free(mutation)
    if not_said := [item for item in differ if not free(item)]:
        return "finding: differs", ", ".join(not_said[:5])
    if len({item.split("/")[0].split("_")[0] for item in differ}) > groups:
        return "finding: differs in more", ", ".join(differ[:5])
    return "as said", ", ".join(differ[:5])


def table(outcomes: list[Outcome]) -> str:
    """Markdown: per reader how many mutations, and what came of them."""
    lines = [
        "| reader | mutations | refused | equal | as said | findings |",
        "|---|---|---|---|---|---|",
    ]
    by_reader: dict[str, Counter] = {}
    for outcome in outcomes:
        by_reader.setdefault(outcome.reader, Counter())[outcome.what.split(":")[0]] += 1
    total: Counter = Counter()
    for name, counts in [*by_reader.items(), ("all", total)]:
        row = [counts[w] for w in ("refused", "equal", "as said", "finding")]
        lines.append(f"| {name} | {sum(row)} | " + " | ".join(f"{n}" for n in row) + " |")
        total.update(counts if counts is not total else {})
    return "\n".join(lines)


def logged(path: Path) -> list[Outcome]:
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [Outcome(n, name, Mutation(*of), what, line) for n, name, of, what, line in rows]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument(
        "--log", type=Path, help="what was done; a stopped campaign goes on from it"
    )
    parser.add_argument("--only", type=int, help="one number, whose files stay")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="mutations."))
    campaign = Campaign(folder)
    if args.only is not None:
        print(campaign.run(args.only), folder / "scratch", sep="\n")
        return 0
    outcomes = logged(args.log) if args.log and args.log.exists() else []
    for number in range(args.start + len(outcomes), args.start + args.count):
        outcomes.append(outcome := campaign.run(number))
        if args.log:
            with args.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(outcome) + "\n")
        if outcome.what.startswith("finding"):
            print(*outcome, sep=" | ", flush=True)
    shutil.rmtree(folder)
    print(table(outcomes))
    return any(outcome.what.startswith("finding") for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main())
