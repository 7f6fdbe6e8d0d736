"""Machines as they are: signals, pipes, users without a name, locales, umasks."""

import ast
import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ecg_jax.errors import UserError
from ecg_jax.run import config as config_lib
from ecg_jax.run import provenance
from ecg_jax.runtime import cache, files, storage
from ecg_jax.runtime.stop import Stop
from tfds_builders import prepare, program

ROOT = Path(__file__).parent.parent
SOURCES = [
    p for folder in ("ecg_jax", "tfds_builders", "configs") for p in (ROOT / folder).rglob("*.py")
]
# run_main, of programs of both packages; the library itself is not imported, so that it is quick.
STARTS = {
    "ecg_jax": "from ecg_jax.errors import run_main as run",
    "tfds_builders": "from tfds_builders.program import run_program as run",
}


@pytest.fixture(autouse=True)
def heard():
    """Ctrl-C reaches the programs that tests start, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ended(start: str, body: str, *, stdin="", env=None, **options):
    source = f"{STARTS[start]}\nimport os, signal, sys, time\ndef main():\n"
    source += "".join(f"    {line}\n" for line in body.splitlines()) + "run(main)\n"
    return subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        env=os.environ | (env or {}),
        **options,
    )


@pytest.mark.parametrize("start", STARTS)
def test_ctrl_c_is_one_line(start, tmp_path):
    """And what is half written is removed."""
    body = f"""
import tempfile
with tempfile.TemporaryDirectory(dir={str(tmp_path)!r}):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)
"""
    done = ended(start, body)
    assert (done.returncode, done.stderr.strip()) == (130, "stopped by Ctrl-C")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("start", STARTS)
def test_a_reader_that_has_gone_is_no_traceback(start):
    read, write = os.pipe()
    os.close(read)
    source = f"{STARTS[start]}\nimport sys\ndef main():\n    print('x' * 100_000)\nrun(main)\n"
    done = subprocess.run(
        [sys.executable, "-c", source], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("start", STARTS)
def test_a_terminal_that_knows_ascii_only(start):
    done = ended(start, "print('±1 µV')", env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, "\\xb11 \\xb5V\n")


def test_ctrl_c_while_a_program_is_imported(tmp_path):
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from ecg_jax import errors\nerrors.heed_interrupts('mine')\n"
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    )
    (package / "train.py").touch()
    command = [sys.executable, "-m", "mine.train"]
    env = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stderr) == (130, "stopped by Ctrl-C\n")


def test_devices_that_are_not_there_are_one_line():
    said = "Unable to initialize backend 'nope': it is not in the list.\\nmore"
    done = ended("ecg_jax", f'raise RuntimeError("{said}")', env={"JAX_PLATFORMS": "nope"})
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: JAX_PLATFORMS=nope: Unable to initialize backend 'nope'")


def test_ctrl_c_in_training_is_noted_once():
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        stop = Stop()
        with pytest.raises(KeyboardInterrupt):  # nothing to save yet
            os.kill(os.getpid(), signal.SIGINT)
        assert (stop.status, stop.asked) == (75, False)
        stop.training = True
        os.kill(os.getpid(), signal.SIGINT)
        assert (stop.status, stop.by, stop.asked) == (130, "Ctrl-C", True)
        with pytest.raises(KeyboardInterrupt):  # a second one does not wait
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# Owners of an `open` that gives bytes: os.open, a zip file's, fsspec.open(...).open.
BINARY = ("os", "archive", "_archive", "self", "open")


def without_encoding(call: ast.Call) -> bool:
    """Whether it opens a text file, or reads a program's text, as the locale says."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    owner = getattr(call.func, "value", None)
    of = getattr(owner, "id", getattr(owner, "attr", ""))
    of = of or getattr(getattr(owner, "func", None), "attr", "")
    given = {keyword.arg for keyword in call.keywords}
    modes = "".join(str(a.value) for a in call.args if isinstance(a, ast.Constant))
    text = {
        "read_text": isinstance(call.func, ast.Attribute) and not call.args,
        "write_text": isinstance(call.func, ast.Attribute),
        "open": "b" not in modes and of not in BINARY,
        "run": "text" in given,
    }
    return text.get(name, False) and "encoding" not in given


def test_every_text_file_has_its_encoding():
    """Else the locale's: `results.json` would be called damaged under another one."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for source in [path.read_text(encoding="utf-8")]
        if re.search(r"(read_text|write_text|open|run)\(", source)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and without_encoding(node)
    ]
    assert not found


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_the_umask_says_who_may_read(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        files.write_whole(tmp_path / "x.json", b"1")
    finally:
        os.umask(before)
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == mode
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_file_system_that_refuses_chmod(tmp_path, monkeypatch):
    def refused(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refused)
    files.write_whole(tmp_path / "x.json", b"1")


def test_a_name_as_long_as_may_be(tmp_path):
    files.write_whole(tmp_path / ("a" * 255), b"1")
    with pytest.raises(UserError, match="File name too long"):
        files.write_whole(tmp_path / ("a" * 300), b"1")


def homeless(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("HOME", "XDG_CACHE_HOME", "ECG_JAX_CACHE", "ECG_JAX_LOCAL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cache.Path, "home", home)


def test_a_user_without_a_home(monkeypatch, tmp_path):
    homeless(monkeypatch)
    for folder in (cache.folder, cache.local):
        with pytest.raises(UserError, match="no home folder: say in ECG_JAX_CACHE"):
            folder("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder("x") == tmp_path / "ecg_jax" / "x"
    monkeypatch.setenv("ECG_JAX_CACHE", str(tmp_path / "own"))
    assert cache.folder("x") == cache.local("x") == tmp_path / "own" / "x"


def test_an_owner_without_a_name(monkeypatch, tmp_path):
    import pwd

    from etils import epath

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    program.nameless_owners()
    (tmp_path / "x").write_bytes(b"12")
    found = epath.Path(tmp_path / "x").stat()
    assert (found.length, found.owner, found.is_directory) == (2, None, False)


def test_a_tilde_that_the_shell_leaves(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert storage.path("~/run") == tmp_path / "run"
    monkeypatch.setenv("ECG_JAX_CACHE", "~/cache")
    assert cache.folder("x") == cache.local("x") == tmp_path / "cache" / "x"
    with pytest.raises(UserError, match="~nobody-of-that-name"):
        storage.path("~nobody-of-that-name/run")
    (tmp_path / "mine.py").write_text("from configs import etp\nget_config = etp.get_config\n")
    argv = ["train", "--config=~/mine.py:demo", "--workdir=~/run"]
    line = config_lib.parse(argv, "usage")
    assert line.workdir == tmp_path / "run" and line.config.method == "etp"
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as end:
        prepare.main(["ptb_xl", "--source=~/empty", "--data_dir=~/data"])
    assert end.value.code == 2
    assert f"--source {tmp_path}/empty: no such folder" in capsys.readouterr().err


@contextlib.contextmanager
def modules_as_before():
    before = {
        name: sys.modules.get(name) for name in list(sys.modules) if name.startswith("configs")
    }
    yield
    for name in [name for name in sys.modules if name.startswith("configs")]:
        del sys.modules[name]
    sys.modules.update(before)


def test_a_package_configs_of_the_current_folder_is_not_taken(monkeypatch, tmp_path):
    """Whether it is a package or a folder, and imported before or not."""
    other = tmp_path / "configs"
    other.mkdir()
    for path in (other / "__init__.py", other / "common.py"):
        path.write_text("raise ImportError('another configs')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    with modules_as_before():
        for name in [name for name in sys.modules if name.startswith("configs")]:
            del sys.modules[name]
        argv = ["train", f"--config={ROOT}/configs/simclr.py:demo", "--workdir=x"]
        assert config_lib.parse(argv, "usage").config.method == "simclr"
        for path in (other / "__init__.py", other / "common.py"):
            path.write_text("")
        body = "def get_config(_=None):\n    1 / 0\n"
        (other / "mine.py").write_text(f"import configs.common\n{body}")
        with pytest.raises(UserError, match=r"mine\.py: .*division"):
            config_lib.parse(["train", "--config=configs/mine.py", "--workdir=x"], "usage")
        assert Path(sys.modules["configs.common"].__file__).parent == other


def repository(folder: Path) -> str:
    """A repository with one commit, which it returns."""

    def git(*arguments):
        options = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
        command = ["git", "-C", str(folder), *options, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout

    folder.mkdir(parents=True, exist_ok=True)
    git("init", "-q")
    (folder / "file").write_text(str(folder))
    git("add", "file")
    git("commit", "-qm", "x")
    return git("rev-parse", "--short=12", "HEAD").strip()


def test_the_commit_is_the_clones_own(monkeypatch, tmp_path):
    other = repository(tmp_path / "other")
    own = repository(tmp_path / "clone")
    place = tmp_path / "clone" / "ecg_jax" / "run" / "provenance.py"
    monkeypatch.setattr(provenance, "__file__", str(place))
    for name in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.setenv(name, str(tmp_path / "other" / (".git" if name == "GIT_DIR" else "")))
    assert provenance.software()["commit"] == own != other
    installed = tmp_path / "clone" / ".venv" / "site-packages" / "ecg_jax" / "run" / "provenance.py"
    installed.parent.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(installed))
    assert provenance.software()["commit"] is None


def test_flags_that_change_a_figure_are_recorded(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--b=1 --xla_force_host_platform_device_count=3 --a")
    assert provenance.flags("XLA_FLAGS") == "--a --b=1"
