#!/usr/bin/env bash
# Trains on a Cloud TPU slice: creates it if it is not there, copies this clone to its hosts, and
# starts one process on each, which goes on when this terminal is closed.
#
#   launch/tpu_pod.sh [--dry-run] --config configs/etp.py --workdir gs://BUCKET/runs/etp \
#       --config.data_dir=gs://BUCKET/data
#   launch/tpu_pod.sh --follow     shows the log of host 0 as it grows
#   launch/tpu_pod.sh --status     one line of each host: running, or the status it ended with
#   launch/tpu_pod.sh --stop       SIGTERM: the run is saved, and the same command goes on
#   launch/tpu_pod.sh --delete     deletes the slice, which costs money until then
#
# Environment: NAME, ZONE, TYPE and VERSION of the slice. Without a bucket: NFS (HOST:/PATH), a share
# for data and runs that is mounted at MOUNT on every host.
set -euo pipefail
cd "$(dirname "$0")/.."

name=${NAME:-ecg-jax}
zone=${ZONE:-us-west4-a}
type=${TYPE:-v5litepod-16}
version=${VERSION:-v2-alpha-tpuv5-lite}
nfs=${NFS:-}
mount=${MOUNT:-/mnt/runs}

dry=false
if [[ ${1:-} == --dry-run ]]; then
  dry=true
  shift
fi
if [[ $# -eq 0 ]]; then
  echo "error: no arguments for the training: --config FILE --workdir DIR" >&2
  exit 2
fi
store=$(printf '%s\n' "$@" | grep -oE -m1 '^(--workdir=)?gs://[^/]+' || true)
store=${store#--workdir=}

run() {
  if $dry; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

on_all_hosts() {
  run gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

case $1 in
  --follow)
    run gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=0 \
      --command="tail -n 100 -F ecg_jax/train.log"
    exit
    ;;
  --status)
    on_all_hosts "cd ecg_jax && echo \$(hostname): \$(cat train.status 2>/dev/null || echo running)"
    exit
    ;;
  --stop)
    on_all_hosts "kill -TERM -- -\$(cat ecg_jax/train.pid)"
    exit
    ;;
  --delete)
    run gcloud compute tpus tpu-vm delete "$name" --zone="$zone" --quiet
    exit
    ;;
esac

if [[ -z $nfs && -z $store ]]; then
  echo "error: a pod's hosts need one folder for data and runs: --workdir gs://BUCKET/FOLDER, or" \
    "NFS=HOST:/PATH" >&2
  exit 2
fi

archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git archive --format=tar.gz --output="$archive" HEAD

if $dry || ! gcloud compute tpus tpu-vm describe "$name" --zone="$zone" >/dev/null 2>&1; then
  run gcloud compute tpus tpu-vm create "$name" --zone="$zone" \
    --accelerator-type="$type" --version="$version"
fi
run gcloud compute tpus tpu-vm scp "$archive" "$name:ecg_jax.tar.gz" --zone="$zone" --worker=all
if [[ -n $nfs ]]; then
  on_all_hosts "sudo apt-get install -y nfs-common && sudo mkdir -p $mount && \
(mountpoint -q $mount || sudo mount -t nfs $nfs $mount)"
fi
# In the project's folder, so that uv installs the versions that the tests last passed with.
on_all_hosts "mkdir -p ecg_jax && tar -xzf ecg_jax.tar.gz -C ecg_jax && cd ecg_jax && \
python3 -m pip install -q uv && python3 -m uv sync -q -p 3.12 --extra tpu --extra gcs"
# One cache for all hosts: what host 0 has compiled, no other compiles again.
cache=${store:-$mount}/cache
on_all_hosts "cd ecg_jax && ECG_JAX_CACHE=$cache launch/detached.sh train \
.venv/bin/python -m ecg_jax.train $(printf '%q ' "$@")"
$dry || echo "follow it with launch/tpu_pod.sh --follow; delete the slice with --delete"
