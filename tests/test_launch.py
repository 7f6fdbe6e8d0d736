"""The launchers, as far as a machine without clusters can check them."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from ecg_jax.run.provenance import archived
from launch import local

LAUNCH = Path(__file__).parent.parent / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
DETACHED = LAUNCH / "detached.sh"
SCRIPTS.remove(DETACHED)  # it is given a command, not a training's arguments
SETTINGS = {"NFS": "10.0.0.2:/runs", "IMAGE": "registry/ecg-jax:1"}
ARGUMENTS = ["--config", "configs/etp.py:demo,seed=1", "--config.evaluate.tasks=('super', 'sub')"]


def script(path, *arguments, **settings):
    env = {k: v for k, v in os.environ.items() if k not in SETTINGS and "SLURM" not in k}
    return subprocess.run(
        ["bash", str(path), *arguments],
        env=env | settings,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("path", [*SCRIPTS, DETACHED], ids=lambda p: p.name)
def test_scripts_are_strict_and_parse(path):
    text = path.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "\nset -euo pipefail\n" in text
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert path.name in (LAUNCH / "README.md").read_text()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_a_dry_run_prints_the_command_with_its_arguments_whole(path):
    done = script(path, "--dry-run", *ARGUMENTS, **SETTINGS)
    assert done.returncode == 0, done.stderr
    if path.name == "gke.sh":
        (container,) = pod(yaml.safe_load(done.stdout))["containers"]
        assert container["image"] == SETTINGS["IMAGE"]
        assert container["args"] == ARGUMENTS
        assert container["command"] == ["python", "-m", "ecg_jax.train"]
        return
    last = done.stdout.splitlines()[-1]
    printed = [sys.executable, "-c", "import sys; print(sys.argv[-1])"]
    words = subprocess.run(
        ["bash", "-c", f'words=({last}); printf "%s\\n" "${{words[@]}}"'],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    if path.name == "tpu_pod.sh":  # a command for a shell of the hosts
        (remote,) = [w.removeprefix("--command=") for w in words if w.startswith("--command=")]
        remote = remote.partition("-m ecg_jax.train")[2]
    else:
        assert words[0] == "srun"
        remote = last.partition("ecg_jax.train")[2]
    command = " ".join(["printf '%s\\n'", remote])
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ARGUMENTS, printed


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_what_is_missing_is_said_in_one_line(path):
    done = script(path, "--dry-run", **SETTINGS)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no arguments")
    if path.suffix == ".sh":
        done = script(path, "--dry-run", *ARGUMENTS)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_a_bucket_needs_no_share_and_holds_the_compiled_programs():
    done = script(LAUNCH / "tpu_pod.sh", "--dry-run", "--config=a", "--workdir=gs://runs-1/etp")
    assert done.returncode == 0, done.stderr
    assert "mount" not in done.stdout
    assert "ECG_JAX_CACHE=gs://runs-1/cache" in done.stdout


def test_a_pod_installs_the_versions_that_were_tested():
    """uv reads the constraints of the project in whose folder it runs."""
    installs = script(LAUNCH / "tpu_pod.sh", "--dry-run", *ARGUMENTS, **SETTINGS).stdout
    (line,) = [line for line in installs.splitlines() if "uv" in line and "sync" in line]
    words = line.replace("\\", "")
    assert words.index("cd ecg_jax ") < words.index("uv sync ")
    image = (LAUNCH / "Dockerfile").read_text()
    assert image.index("WORKDIR /ecg_jax") < image.index("RUN uv sync ")
    assert "pip install --no-cache-dir -e" not in image


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--follow", "tail -n 100 -F ecg_jax/train.log"),
        ("--status", "train.status"),
        ("--stop", "kill -TERM"),
        ("--delete", "tpu-vm delete"),
    ],
)
def test_a_pods_training_can_be_followed_stopped_and_deleted(option, words):
    done = script(LAUNCH / "tpu_pod.sh", "--dry-run", option)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert words in done.stdout.replace("\\", "")


def wait_until(there, seconds=60):
    began = time.monotonic()
    while not there():
        assert time.monotonic() < began + seconds
        time.sleep(0.05)


def test_a_detached_command_outlives_its_shell_and_hears_sigterm(tmp_path):
    program = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(75)))
print("ready", flush=True)
time.sleep(600)
"""
    start = [str(DETACHED), "train", sys.executable, "-c", program]
    started = subprocess.run(start, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert started.stdout == "started: train.log\n"
    log, status = tmp_path / "train.log", tmp_path / "train.status"
    wait_until(lambda: log.exists() and "ready" in log.read_text())
    again = subprocess.run(start, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert not status.exists()
    os.killpg(int((tmp_path / "train.pid").read_text()), signal.SIGTERM)
    wait_until(lambda: status.exists() and status.read_text())
    assert status.read_text() == "75\n"
    assert "saved" in log.read_text()


def test_an_archive_keeps_the_commit(tmp_path):
    """`git archive`, which the launchers copy, has no .git to ask."""
    root = LAUNCH.parent
    if not (root / ".git").exists():
        pytest.skip("not a clone")
    names = [".commit", ".gitattributes"]
    archive = ["git", "archive", "HEAD", *names]
    done = subprocess.run(archive, cwd=root, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(tmp_path)], input=done.stdout, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert (tmp_path / ".commit").read_text().strip() == head
    assert archived(tmp_path) == head[:12]
    assert archived(root) is None  # a clone says it by git


def pod(manifest):
    (job,) = manifest["spec"]["replicatedJobs"]
    return job["template"]["spec"]["template"]["spec"]


def test_the_jobset_has_what_a_slice_needs():
    manifest = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    assert manifest["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert manifest["kind"] == "JobSet"
    (job,) = manifest["spec"]["replicatedJobs"]
    spec, hosts = job["template"]["spec"], pod(manifest)
    (container,) = hosts["containers"]
    x, y = map(int, hosts["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] == spec["completions"] == x * y // chips
    assert hosts["restartPolicy"] == "Never"
    # What takes a host away ends the Job as such, and the set starts again at no cost.
    (rule,) = manifest["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    disrupted, stopped = spec["podFailurePolicy"]["rules"]
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget"}]
    assert stopped["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "In",
        "values": [75],
    }
    volumes = {v["name"] for v in hosts["volumes"]}
    assert {m["name"] for m in container["volumeMounts"]} <= volumes


def test_slurm_asks_for_a_task_a_gpu():
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    options = dict(
        line.removeprefix("#SBATCH --").split("=", 1)
        for line in lines
        if line.startswith("#SBATCH") and "=" in line
    )
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert options["signal"].startswith("TERM@")
    assert not any("gpus-per-task" in line or "gpu-bind" in line for line in lines)


def test_the_local_launchers_dry_run(capsys):
    command = ["--", "python", "-m", "ecg_jax.train", "--workdir=a b"]
    assert local.main(["--dry_run", "--processes=2", "--devices=4", "--port=1234", *command]) == 0
    lines = capsys.readouterr().out.splitlines()
    for i, line in enumerate(lines):
        assert line == (
            "JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=4 JAX_CPU_COLLECTIVES_IMPLEMENTATION=gloo "
            "python -m ecg_jax.train '--workdir=a b' "
            f"--coordinator=127.0.0.1:1234 --processes=2 --process={i}"
        )
    assert len(lines) == 2
    assert local.environment(0, 2, 1) == {"CUDA_VISIBLE_DEVICES": "2,3"}


def launch(program):
    command = [sys.executable, "-m", "launch.local", "--processes=2", "--", sys.executable, "-c"]
    return subprocess.Popen([*command, program], cwd=LAUNCH.parent)


def test_one_that_fails_ends_the_others_and_gives_its_status():
    wait = "import sys, time; sys.exit(3) if '--process=1' in sys.argv else time.sleep(600)"
    assert launch(wait).wait(timeout=60) == 3


def test_sigterm_is_passed_on(tmp_path):
    program = f"""
import pathlib, signal, sys, time
place = pathlib.Path({str(tmp_path)!r}, sys.argv[-1])
signal.signal(signal.SIGTERM, lambda *_: (place.write_text("saved"), sys.exit(0)))
place.write_text("ready")
time.sleep(600)
"""
    running = launch(program)
    names = ["--process=0", "--process=1"]
    while not all((tmp_path / name).exists() for name in names):
        assert running.poll() is None
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=60) == 0
    assert [(tmp_path / name).read_text() for name in names] == ["saved", "saved"]


def beam(*arguments, **settings):
    env = {"PATH": os.environ["PATH"]} | settings
    path = LAUNCH / "beam" / "dataflow.sh"
    return subprocess.run(
        ["bash", str(path), *arguments], env=env, capture_output=True, text=True, check=False
    )


def test_preparing_on_dataflow_is_one_command():
    settings = {"PROJECT": "p", "REGION": "r", "BUCKET": "b", "IMAGE": "i:1"}
    source = "gs://b/mimic iv.zip"
    done = beam("--dry-run", "mimic_iv_ecg", "--source", source, **settings)
    assert done.returncode == 0, done.stderr
    words = shlex.split(done.stdout)
    assert words[:4] == ["python", "-m", "tfds_builders.prepare", "mimic_iv_ecg"]
    assert words[words.index("--source") + 1] == source
    options = shlex.split(words[words.index("--beam") + 1])
    assert {"--runner=DataflowRunner", "--project=p", "--sdk_container_image=i:1"} <= set(options)
    assert words[words.index("--data_dir") + 1] == "gs://b/data"
    for name in settings:
        left = {key: value for key, value in settings.items() if key != name}
        done = beam("--dry-run", "mimic_iv_ecg", **left)
        assert done.returncode == 2 and f"error: {name} is not set" in done.stderr
    assert beam("--dry-run", **settings).returncode == 2


def test_flinks_job_is_a_command_of_prepare():
    from tfds_builders import prepare

    text = (LAUNCH / "beam" / "flink.yaml").read_text()
    cluster, job = yaml.safe_load_all(text)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "tfds_builders.prepare"]
    args = prepare._parse(container["args"])
    assert args.name == "mimic_iv_ecg" and "--runner=FlinkRunner" in args.beam.split()
    managers = cluster["spec"]["taskManager"]["podTemplate"]["spec"]
    for spec in (managers, job["spec"]["template"]["spec"]):
        assert spec["volumes"][0]["persistentVolumeClaim"] == {"claimName": "ecg-data"}
        assert all(c["volumeMounts"][0]["mountPath"] == "/data" for c in spec["containers"])
    assert managers["containers"][1]["args"] == ["--worker_pool"]
