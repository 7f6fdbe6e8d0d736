"""The training core starts where the packages for data, records and boards are missing."""

import subprocess
import sys

MISSING = ("tensorflow_datasets", "array_record", "grain", "wfdb", "tensorboardX", "sklearn")
CORE = (
    "ecg_jax.training.step",
    "ecg_jax.training.feed",
    "ecg_jax.training.state",
    "ecg_jax.training.progress",
    "ecg_jax.train",
    "ecg_jax.plan",
    "ecg_jax.predict",
    "ecg_jax.inference.model",
    "ecg_jax.report.record_page",
    "ecg_jax.planning.show",
    "benchmarks.gpu",
    "benchmarks.gpu_parts",
    "benchmarks.step_jax",
    "benchmarks.convolutions",
    "benchmarks.profile_step",
)
PROGRAM = f"""
import importlib, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {MISSING}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
for module in {CORE}:
    importlib.import_module(module)
from ecg_jax import methods
from configs import etp
methods.build(etp.get_config("rate=100"))
"""


def test_the_training_core_needs_no_package_for_data():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
