"""What is built from here works where there is no clone, with no package for training."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import agreement
import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from written_formats import write_muse

from ecg_jax.inference import exported
from ecg_jax.methods import build
from ecg_jax.run.experiment import NO_TOWER, blank
from ecg_jax.run.exported import CONFIG, WEIGHTS, flatten, sealed, sha256_of
from tfds_builders.simulated.simulator import simulate

ROOT = Path(__file__).parent.parent
MISSING = ("tensorflow_datasets", "array_record", "grain", "wfdb", "tensorboardX", "transformers")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The wheel, built and unpacked elsewhere, as an installer does."""
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = out.glob("*.whl")
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def python(installed: Path, where: Path, *arguments: object) -> subprocess.CompletedProcess:
    """Runs Python without this clone: -S reads no .pth file, by which it is installed here."""
    paths = [str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-S", *map(str, arguments)]
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)


def test_what_the_wheel_holds(installed):
    names = {p.name for p in installed.iterdir()}
    assert names == {"ecg_jax", "tfds_builders"} | {n for n in names if n.endswith(".dist-info")}
    (info,) = installed.glob("*.dist-info")
    assert "ecg-jax = ecg_jax.__main__:main" in (info / "entry_points.txt").read_text()
    lines = (info / "METADATA").read_text().splitlines()
    needed = [x for x in lines if x.startswith("Requires-Dist:") and "extra ==" not in x]
    assert not [x for x in needed if x.split()[1].split(">")[0].replace("-", "_") in MISSING]
    for name in ("configs/etp.py", "report/report.css", "text/prompts.toml", "__init__.pyi"):
        assert (installed / "ecg_jax" / name).is_file()


def test_configs_are_found_where_there_is_no_clone(installed, tmp_path):
    own = tmp_path / "mine.py"
    own.write_text(
        "from configs import etp\n\ndef get_config(arg=None):\n    return etp.get_config(arg)\n"
    )
    program = (
        "import sys; from ecg_jax.run import config\n"
        "for file in ('configs/etp.py:demo', 'etp:demo', 'mine.py:demo'):\n"
        "    line = config.parse(['x', '--config', file, '--config.epochs=3', '--workdir=w'], '')\n"
        "    print(line.config.method, line.config.epochs, line.config.dataset)\n"
    )
    done = python(installed, tmp_path, "-c", program)
    assert done.stdout == "etp 3 simulated\n" * 3, done.stderr
    done = python(installed, tmp_path, "-m", "ecg_jax", "train", "--config", "none.py")
    assert (done.returncode, done.stderr) == (2, "error: no such config file: none.py\n")


def test_commands(installed, tmp_path):
    done = python(installed, tmp_path, "-m", "ecg_jax")
    assert done.returncode == 0 and "predict" in done.stdout
    done = python(installed, tmp_path, "-m", "ecg_jax", "predct")
    assert done.returncode == 2 and "no command 'predct': there are train" in done.stderr
    program = "import sys; sys.modules['tensorflow_datasets'] = None; import ecg_jax.__main__ as m"
    program += "; sys.argv = ['x', 'prepare', 'simulated', '--data_dir', 'd']; m.main()"
    done = python(installed, tmp_path, "-c", program)
    assert (done.returncode, done.stderr) == (
        2,
        "error: ecg-jax prepare needs tensorflow_datasets: pip install 'ecg-jax[train]'\n",
    )


def test_predicting_needs_no_package_for_training(installed, tmp_path):
    """A model of random weights reads and encodes a MUSE file there."""
    config = agreement.small(tmp_path)
    config.model.update(width=4)
    params, state = build(config).init(jax.random.key(0), blank(250, 384))
    arrays = flatten(jax.device_get({"params": params, "method": state}))
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(arrays, folder / WEIGHTS)
    description = exported.described(config, {"text_tower": NO_TOWER | {"width": 384}}, 1)
    description["weights_sha256"] = sha256_of(folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(sealed(description)))
    ecg = simulate(np.random.default_rng(0), findings=["NORM", "SR"], seconds=6).ecg_uv
    write_muse(tmp_path / "m.xml", ecg, 500)
    program = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {MISSING}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import ecg_jax
model = ecg_jax.load("model")
print(ecg_jax.__file__, model.features(ecg_jax.read("m.xml")).shape)
"""
    done = python(installed, tmp_path, "-c", program)
    assert done.stdout == f"{installed}/ecg_jax/__init__.py (32,)\n", done.stderr
