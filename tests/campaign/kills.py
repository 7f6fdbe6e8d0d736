"""Programs killed at random moments, and run again: all files are as those of an undisturbed run.

    PYTHONPATH=.:tests python tests/campaign/kills.py --count 300

Each job runs in a process of its own, a fork of this one. A number draws the job and the moment, as
a share of the calls that an undisturbed run makes; there the process is killed (SIGKILL), or the
disk is full from then on (`--faults`). Then the job runs again, undisturbed, and what it leaves is
compared byte for byte. Training itself is in `soak.py` and `tests/test_kill.py`.
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
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from campaign import readers
from ecg_jax.errors import UserError
from tfds_builders import prepare

FAULTS = ("kill", "full disk", "read-only")
REFUSED = 2


class Job(NamedTuple):
    """What `begin` makes of a folder, `run` goes on with; `run` is what is disturbed."""

    begin: Callable[[Path], object]
    run: Callable[[Path], object]


def _source(folder: Path) -> None:
    readers.write_published(folder / "source", "ptb_xl", sums=True)


def _prepare(folder: Path, *options: str) -> None:
    given = ["ptb_xl", "--source", str(folder / "source"), "--data_dir", str(folder / "data")]
    if status := prepare.main([*given, *options]):
        raise UserError(f"prepare ended with {status}")


def _prepared_before(folder: Path) -> None:
    _source(folder)
    _prepare(folder)


def _embed(folder: Path) -> None:
    from ecg_jax.text import tower

    for text in "abcdefgh":
        path = folder / "cache" / text[:1] / f"{text}.bin"
        if tower._read_entry(path, text, 8) is None:
            tower._write_entry(path, text, readers._vector(text))


def _results(folder: Path) -> None:
    readers.write_results(folder)


def _states(folder: Path) -> None:
    """A run of five checkpoints that goes on from the newest, as training does."""
    from ecg_jax.runtime.checkpoint import Checkpoints

    saves = Checkpoints(folder / "last", keep=2)
    restored = saves.restore(readers._state())
    for step in range(restored[0] + 1 if restored else 1, 6):
        saves.save(step, readers._state(step), {"best": step / 8})
        saves.wait()
    saves.close()


def _trained(folder: Path) -> None:
    readers.write_trained(folder / "run")


def _export(folder: Path) -> None:
    from ecg_jax import export

    if not (folder / "model" / "config.json").exists():
        export.export(folder / "run", folder / "model")


def nothing(_: Path) -> None:
    pass


JOBS = {
    "prepare": Job(_source, _prepare),
    "prepare --overwrite": Job(_prepared_before, lambda folder: _prepare(folder, "--overwrite")),
    "text embedding": Job(nothing, _embed),
    "results": Job(nothing, _results),
    "checkpoints": Job(nothing, _states),
    "export": Job(_trained, _export),
}


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


def forked(work: Callable[[Path], object], folder: Path, kind: str = "", at: int = 0):
    """(status, calls, last line of an unexpected error) of `work` in a process of its own."""
    (read, write), told = os.pipe(), os.write
    pid = os.fork()
    if pid == 0:
        status, line, disturbance = 0, "", Disturbance(kind, at)
        quiet = io.StringIO()
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            sys.setprofile(disturbance)
            try:
                work(folder)
            except (UserError, OSError):
                status = REFUSED
            except BaseException:
                status, line = 1, traceback.format_exc()[-600:]
            finally:
                sys.setprofile(None)
        told(write, json.dumps([disturbance.calls, line]).encode())
        os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    calls, line = json.loads(said) if said else (0, "")
    return status, calls, line


def _half(name: str) -> bool:
    return name.startswith((".", "incomplete."))


def content(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder, but of what was being written, whose name begins
    with a dot or `incomplete`: a kill leaves it."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(map(_half, path.relative_to(folder).parts))
    }


class Campaign:
    def __init__(self, folder: Path, faults: tuple[str, ...] = FAULTS):
        self._folder, self._faults, self._made = folder, faults, {}

    def _undisturbed(self, name: str) -> tuple[Path, dict[str, str], int]:
        if name not in self._made:
            job, begun = JOBS[name], self._folder / f"begun{len(self._made)}"
            begun.mkdir()
            status, _, line = forked(job.begin, begun)
            assert status == 0, line
            whole = self._folder / f"whole{len(self._made)}"
            readers.clone(begun, whole)
            status, calls, line = forked(job.run, whole)
            assert status == 0, line
            self._made[name] = begun, content(whole), calls
        return self._made[name]

    def run(self, number: int) -> tuple[str, str, str]:
        """(job, fault, what is wrong or empty)."""
        name = list(JOBS)[number % len(JOBS)]
        rng = random.Random(f"kill {number}")
        kind = self._faults[number // len(JOBS) % len(self._faults)]
        begun, expected, calls = self._undisturbed(name)
        scratch = self._folder / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        readers.clone(begun, scratch)
        status, _, line = forked(JOBS[name].run, scratch, kind, rng.randrange(1, calls + 1))
        allowed = (-signal.SIGKILL,) if kind == "kill" else (0, REFUSED)
        if status not in allowed:
            return name, kind, f"status {status}: {line}"
        again, _, line = forked(JOBS[name].run, scratch)
        if again:
            return name, kind, f"the second time: status {again}: {line}"
        found = content(scratch)
        differ = sorted(k for k in expected | found if expected.get(k) != found.get(k))
        return name, kind, f"differs: {', '.join(differ[:6])}" if differ else ""


def table(outcomes: list[tuple[str, str, str]]) -> str:
    lines = ["| job | fault | times | findings |", "|---|---|---|---|"]
    tried = Counter((name, kind) for name, kind, _ in outcomes)
    wrong = Counter((name, kind) for name, kind, why in outcomes if why)
    lines += [f"| {n} | {k} | {c} | {wrong[(n, k)]} |" for (n, k), c in sorted(tried.items())]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--start", type=int, default=0)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills."))
    campaign, outcomes = Campaign(folder), []
    for number in range(args.start, args.start + args.count):
        outcomes.append(campaign.run(number))
        if outcomes[-1][2]:
            print(number, *outcomes[-1], flush=True)
    shutil.rmtree(folder)
    print(table(outcomes))
    return any(why for *_, why in outcomes)


if __name__ == "__main__":
    sys.exit(main())
