#!/usr/bin/env bash
# Trains on a Cloud TPU slice: creates it if it is not there, copies this clone to its hosts, runs
# one process on each.
#
#   launch/tpu_pod.sh [--dry-run] --config configs/etp.py --workdir /mnt/runs/etp \
#       --config.data_dir=/mnt/runs/data
#
# Environment: NAME, ZONE, TYPE and VERSION of the slice; NFS (HOST:/PATH), a share for data and
# runs that is mounted at MOUNT on every host. Delete the slice yourself: it costs money while it is.
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
if [[ -z $nfs ]]; then
  echo "error: NFS is not set: a pod's hosts need one folder for data and runs, NFS=HOST:/PATH" >&2
  exit 2
fi

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

archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git archive --format=tar.gz --output="$archive" HEAD

if $dry || ! gcloud compute tpus tpu-vm describe "$name" --zone="$zone" >/dev/null 2>&1; then
  run gcloud compute tpus tpu-vm create "$name" --zone="$zone" \
    --accelerator-type="$type" --version="$version"
fi
run gcloud compute tpus tpu-vm scp "$archive" "$name:ecg_jax.tar.gz" --zone="$zone" --worker=all
on_all_hosts "sudo apt-get install -y nfs-common && sudo mkdir -p $mount && \
(mountpoint -q $mount || sudo mount -t nfs $nfs $mount)"
on_all_hosts "mkdir -p ecg_jax && tar -xzf ecg_jax.tar.gz -C ecg_jax && \
python3 -m pip install -q uv && python3 -m uv venv -q --clear -p 3.12 ecg_jax/.venv && \
python3 -m uv pip install -q -p ecg_jax/.venv -e './ecg_jax[tpu]'"
on_all_hosts "cd ecg_jax && .venv/bin/python -m ecg_jax.train $(printf '%q ' "$@")"
