"""Programs killed at random moments, and run again: all files are as those of an undisturbed run.

    PYTHONPATH=.:tests python tests/campaign/kills.py --count 300 --long --log FILE

Each job of `kill_jobs.py` runs in a process of its own, a fork of this one. A number draws the job,
the fault and the moment; there the process is killed, or from then on the disk is full, or nothing
may be written. Then the job runs again, undisturbed, and what it leaves is compared byte for byte.
Programs with trainers (`--long`) are disturbed several times before they finish. Each number adds a
line to the log; a campaign that was stopped goes on behind the last. Several processes that train
together are in `soak.py`.
"""

import argparse
import builtins
import contextlib
import errno
import hashlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from campaign.kill_jobs import JOBS, LONG, Job, load
from campaign.reader import clone
from ecg_jax.errors import UserError

FAULTS = ("kill", "full disk", "read-only")
REFUSED = 2


class Disturbance:
    """Counts the calls of the main thread's functions, and strikes at the nth."""

    def __init__(self, kind: str = "", at: int = 0):
        self.calls, self._kind, self._at = 0, kind, at

    def __call__(self, frame: object, event: str, _: object) -> None:
        if event not in ("call", "c_call"):
            return
        self.calls += 1
        if self._kind and self.calls == self._at:
            if self._kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            sys.setprofile(None)
            deny(errno.ENOSPC if self._kind == "full disk" else errno.EROFS)


def deny(number: int) -> None:
    """From now on nothing can be written."""
    open_, write = os.open, os.write
    error = OSError(number, os.strerror(number))

    def refuse(path: object, flags: int, *rest: object, **more: object) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(number, os.strerror(number), str(path))
        return open_(path, flags, *rest, **more)  # type: ignore[arg-type]

    def no_more(file: int, data: bytes) -> int:
        if file > 2:
            raise error
        return write(file, data)

    os.open, os.write = refuse, no_more  # type: ignore[assignment]
    plain = io.open

    def opened(file: object, mode: str = "r", *rest: object, **more: object):
        if any(c in mode for c in "wax+") and not isinstance(file, int):
            raise OSError(number, os.strerror(number), str(file))
        return plain(file, mode, *rest, **more)  # type: ignore[call-overload]

    io.open = opened  # type: ignore[assignment]
    builtins.open = opened  # type: ignore[assignment]

    def made(path: object, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    os.mkdir = os.rename = os.replace = made  # type: ignore[assignment]
    if number == errno.EROFS:
        os.unlink = os.remove = os.rmdir = made  # type: ignore[assignment]
    # What other languages write: nothing grows. (Python ignores the signal that says so.)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


class Timer:
    """Strikes after so much of the process's own time, whichever thread has it."""

    def __init__(self, kind: str, seconds: float):
        self._kind = kind
        if kind == "kill":  # what SIGPROF does by itself: the process ends at once
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
        elif kind:
            signal.signal(signal.SIGPROF, self._strike)
        if kind:
            signal.setitimer(signal.ITIMER_PROF, seconds)

    def _strike(self, *_: object) -> None:
        deny(errno.ENOSPC if self._kind == "full disk" else errno.EROFS)


class Ended(NamedTuple):
    """How a forked process ended: its status, the calls it made, the processor's seconds, and the
    last lines of an error that nobody expected."""

    status: int
    calls: int
    seconds: float
    line: str


def forked(
    work: Callable[[Path], object], folder: Path, kind: str = "", at: float = 0, timed=False
):
    """`work` in a process of its own, disturbed at a call, or (`timed`) after `at` seconds."""
    (read, write), told = os.pipe(), os.write
    pid = os.fork()
    if pid == 0:
        status, line, disturbance = 0, "", Disturbance(kind, 0 if timed else int(at))
        quiet = io.StringIO()
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            Timer(kind, at) if timed else sys.setprofile(disturbance)
            try:
                work(folder)
            except (UserError, OSError):
                status = REFUSED
            except SystemExit as end:
                status, line = int(end.code or 0), quiet.getvalue()[-600:]
            except BaseException:
                status, line = 1, traceback.format_exc()[-600:]
            finally:
                sys.setprofile(None)
                signal.setitimer(signal.ITIMER_PROF, 0)
        told(write, json.dumps([disturbance.calls, line]).encode())
        os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    _, ended, used = os.wait4(pid, 0)
    calls, line = json.loads(said) if said else (0, "")
    return Ended(os.waitstatus_to_exitcode(ended), calls, used.ru_utime + used.ru_stime, line)


# What a kill leaves of what was being written; bytes that orbax chooses anew each time, of which
# `digests.json` says what is in them; and times.
HALF = re.compile(r"(^|/)(\.|incomplete\.)")
CHECKPOINT = re.compile(r"(^|/)(last|best)/\d+/")
TIMES = re.compile(r"tfevents")


def content(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder, but of those; of `metrics.jsonl` without the lines
    of how fast it went, of `report.html`, which draws them, without that section and its numbers:
    they are in `results.json`."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not any(p.search(name) for p in (HALF, CHECKPOINT, TIMES)):
            data = path.read_bytes()
            if path.name == "metrics.jsonl":
                data = b"\n".join(line for line in data.split(b"\n") if b"pace/" not in line)
            elif path.name == "report.html":
                data = re.sub(rb'<section id="training".*?</section>', b"", data, flags=re.DOTALL)
                data = re.sub(rb"[\d.:,-]+", b"", data)
            found[name] = hashlib.sha256(data).hexdigest()
    return found


def clear(said: str) -> bool:
    """Whether what a program said at its end has one line for its error, and none of Python's.
    Before it stand what is going on, and bars."""
    lines = re.split("[\r\n]", said)
    errors = sum(line.startswith("error: ") for line in lines)
    return not said or (errors == 1 and "Traceback" not in said)


class Outcome(NamedTuple):
    """Of a number: its job and fault, how often the job was disturbed, how many of these ended it
    early, what is wrong or empty, and the processor's seconds."""

    number: int
    job: str
    fault: str
    times: int
    struck: int
    wrong: str
    seconds: float


class Campaign:
    def __init__(self, folder: Path, jobs: dict[str, Job], faults: tuple[str, ...] = FAULTS):
        self._folder, self._jobs, self._faults, self._made = folder, jobs, faults, {}
        self._turns = [n for turn in range(10) for n in jobs if turn < jobs[n].turns]

    def _undisturbed(self, name: str) -> tuple[Path, dict[str, str], Ended]:
        """Where the job begins, what it leaves, and how it ended."""
        if name not in self._made:
            job, begun = self._jobs[name], self._folder / f"begun{len(self._made)}"
            begun.mkdir()
            first = forked(job.begin, begun, timed=True)
            assert first.status == 0, first.line
            whole = self._folder / "scratch"  # a run's config.json names the folder of its data
            for _ in range(2 if job.timed else 1):  # the second finds all programs compiled
                shutil.rmtree(whole, ignore_errors=True)
                clone(begun, whole)
                ended = forked(job.run, whole, timed=job.timed)
                assert ended.status == 0, ended.line
            self._made[name] = begun, content(whole), ended
        return self._made[name]

    def run(self, number: int) -> Outcome:
        name = self._turns[number % len(self._turns)]
        job, rng = self._jobs[name], random.Random(f"kill {number}")
        kind = self._faults[number // len(self._turns) % len(self._faults)]
        begun, expected, whole = self._undisturbed(name)
        scratch = self._folder / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        clone(begun, scratch)
        allowed = (-signal.SIGKILL, -signal.SIGPROF, 0) if kind == "kill" else (0, REFUSED)
        struck, seconds, wrong = 0, 0.0, ""
        for _ in range(job.kills):
            at = rng.uniform(0.1, 1) * whole.seconds if job.timed else rng.randint(1, whole.calls)
            ended = forked(job.run, scratch, kind, at, job.timed)
            struck, seconds = struck + (ended.status != 0), seconds + ended.seconds
            if ended.status not in allowed or not clear(ended.line):
                wrong = wrong or f"status {ended.status}: {ended.line}"
        again = forked(job.run, scratch, timed=job.timed)
        if again.status:
            wrong = wrong or f"the last time: status {again.status}: {again.line}"
        found = content(scratch)
        if differ := sorted(k for k in expected | found if expected.get(k) != found.get(k)):
            wrong = wrong or f"differs: {', '.join(differ[:6])}"
        return Outcome(number, name, kind, job.kills, struck, wrong, seconds + again.seconds)


def table(outcomes: list[Outcome]) -> str:
    lines = [
        "| job | fault | times | ended by it | findings | processor, s |",
        "|---|---|---|---|---|---|",
    ]
    rows: dict[tuple[str, str], Counter] = {}
    for o in outcomes:
        row = rows.setdefault((o.job, o.fault), Counter())
        row.update(times=o.times, struck=o.struck, wrong=int(bool(o.wrong)), seconds=o.seconds)
    rows["all", ""] = sum(rows.values(), Counter())
    for (name, kind), row in rows.items():
        counts = " | ".join(str(row[key]) for key in ("times", "struck", "wrong"))
        lines.append(f"| {name} | {kind} | {counts} | {row['seconds']:.0f} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300, help="disturbances")
    parser.add_argument("--long", action="store_true", help="programs that train and evaluate, too")
    parser.add_argument(
        "--log", type=Path, help="what was done; a stopped campaign goes on from it"
    )
    parser.add_argument("--jobs", help="only these, with semicolons between")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills."))
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    jobs = JOBS | (LONG if args.long else {})
    jobs = {name: jobs[name] for name in args.jobs.split(";")} if args.jobs else jobs
    load()
    campaign, outcomes = Campaign(folder, jobs), []
    if args.log and args.log.exists():
        outcomes = [Outcome(*json.loads(line)) for line in args.log.read_text().splitlines()]
    while sum(outcome.times for outcome in outcomes) < args.count:
        outcome = campaign.run(len(outcomes))
        outcomes.append(outcome)
        if args.log:
            with args.log.open("a") as file:
                file.write(json.dumps(outcome) + "\n")
        if outcome.wrong:
            print(*outcome, sep=" | ", flush=True)
    shutil.rmtree(folder)
    print(table(outcomes))
    return any(outcome.wrong for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main())
