"""A whole run in a bucket: prepare, train, kill, go on, evaluate, export."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import object_store

from tfds_builders.simulated.layouts import write_ptb_xl

ROOT = Path(__file__).parent.parent
TRAIN = [
    "tests/campaign/trainer.py",
    "--config=configs/etp.py:demo",
    "--workdir=gs://bucket/run",
    "--config.data_dir=gs://bucket/data",
    "--config.build=False",
    "--config.dataset=ptb_xl",
    "--config.epochs=3",
    "--config.batch_size=32",
    "--config.checkpoint_seconds=0.0",
    "--config.seconds=2.5",
    "--config.model.width=8",
    "--config.model.dim=32",
    "--config.model.convolution=plain",
    "--config.evaluate.protocols=('zero_shot',)",
    "--config.evaluate.tasks=('super',)",
    "--config.evaluate.select=super",
    "--config.evaluate.draws=20",
]


PREPARE = [
    "tfds_builders.prepare",
    "ptb_xl",
    "--rate=100",
    "--source=gs://bucket/ptb-xl",
    "--data_dir=gs://bucket/data",
]


def test_a_run_in_a_bucket_goes_on_and_is_evaluated_and_exported(tmp_path):
    for name in ("store", "work", "cache", "tmp"):
        (tmp_path / name).mkdir()
    write_ptb_xl(tmp_path / "work", records=200, rates=(100,))
    for file in (tmp_path / "work").rglob("*"):
        if file.is_file():
            name = f"bucket/ptb-xl/{file.relative_to(tmp_path / 'work').as_posix()}"
            file.rename(tmp_path / "store" / quote(name, safe=""))
    with object_store.served(tmp_path / "store") as served:
        _chain(tmp_path, served)


def _chain(tmp_path, served):
    def run(*command, fault=None):
        return subprocess.run(
            [sys.executable, str(ROOT / "tests/object_store.py"), *command],
            cwd=ROOT,
            env=os.environ
            | served
            | {
                "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": "1",
                "OBJECT_STORE": str(tmp_path / "store"),
                "ECG_JAX_CACHE": "gs://bucket/cache",
                "ECG_JAX_LOCAL": str(tmp_path / "cache"),
                "TMPDIR": str(tmp_path / "tmp"),
                "FAULT": json.dumps(fault),
                "SHALLOW": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )

    for line in ("402 files agree with SHA256SUMS.txt", "is already prepared in gs://bucket/data"):
        prepared = run(*PREPARE)
        assert prepared.returncode == 0, prepared.stderr
        assert line in prepared.stdout
    killed = run(*TRAIN, fault={"kind": "kill", "process": 0, "step": 10})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    time.sleep(object_store.STALE_SECONDS)  # so long it has the killed run's lock
    done = run(*TRAIN)
    assert done.returncode == 0, done.stderr
    # At step 8 the checkpoint of step 4 was waited for; that of step 8 may be whole.
    assert re.search("resumed at step [48]", done.stdout), done.stdout

    def stored():
        names = {p.name.replace("%2F", "/") for p in (tmp_path / "store").iterdir()}
        return {n.removeprefix("bucket/run/") for n in names if n.startswith("bucket/run/")}

    found = stored()
    assert {"config.json", "metrics.jsonl", "results.json", "predictions.npz"} <= found
    assert {"report.html", "pictures.npz", "checkpoints/last/12/index.json"} <= found
    assert any(name.startswith("tensorboard/") for name in found)
    assert "lock" not in found
    lines = (tmp_path / "store" / "bucket%2Frun%2Fmetrics.jsonl").read_text().splitlines()
    steps = [row["step"] for row in map(json.loads, lines) if "loss" in row]
    assert steps == list(range(1, 13))
    asked = ["--protocols=knn", "--tasks=super"]
    evaluated = run("ecg_jax.evaluate", "--workdir=gs://bucket/run", *asked)
    assert evaluated.returncode == 0, evaluated.stderr
    rows = json.loads((tmp_path / "store" / "bucket%2Frun%2Fresults.json").read_text())
    assert {"zero_shot", "knn"} <= {row["protocol"] for row in rows}
    exported = run("ecg_jax.export", "--workdir=gs://bucket/run", "--out=gs://bucket/model")
    assert exported.returncode == 0, exported.stderr
    names = {p.name for p in (tmp_path / "store").glob("bucket%2Fmodel%2F*")}
    assert {n.rpartition("%2F")[2] for n in names} == {
        "model.safetensors",
        "heads.safetensors",
        "config.json",
        "README.md",
        "FIGURES.md",
    }
    assert not (ROOT / "gs:").exists()
