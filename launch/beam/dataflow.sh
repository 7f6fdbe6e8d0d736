#!/usr/bin/env bash
# Prepares a dataset on Google Cloud Dataflow, from a bucket into a bucket.
#
#   PROJECT=NAME REGION=us-central1 BUCKET=NAME IMAGE=REGION-docker.pkg.dev/PROJECT/ecg-jax/beam:TAG \
#       launch/beam/dataflow.sh [--dry-run] mimic_iv_ecg --source gs://BUCKET/mimic-iv-ecg-1.0.zip \
#       --rate 100 --skip_bad
#
# This machine plans, waits, and compares what came with the list; it needs the extras beam and gcs and
# `pip install 'apache-beam[gcp]'`. Environment: IMAGE, built with launch/beam/Dockerfile; WORKERS (16),
# MACHINE (n2-standard-4). The data go to gs://BUCKET/data. --dry-run prints the command.
set -euo pipefail

dry=false
if [[ ${1:-} == --dry-run ]]; then
  dry=true
  shift
fi
if [[ $# -eq 0 ]]; then
  echo "error: no arguments: the dataset's name, --source gs://BUCKET/FILE.zip, --rate" >&2
  exit 2
fi
for name in PROJECT REGION BUCKET IMAGE; do
  if [[ -z ${!name:-} ]]; then
    echo "error: $name is not set: see the first lines of launch/beam/dataflow.sh" >&2
    exit 2
  fi
done

options=(
  --runner=DataflowRunner
  --project="$PROJECT"
  --region="$REGION"
  --temp_location="gs://$BUCKET/tmp"
  --sdk_container_image="$IMAGE"
  --sdk_location=container
  --num_workers="${WORKERS:-16}"
  --max_num_workers="${WORKERS:-16}"
  --autoscaling_algorithm=NONE
  --machine_type="${MACHINE:-n2-standard-4}"
  --disk_size_gb=50
)
# One process for each worker: the list of a zip of 1.6 million files takes a gigabyte.
options+=(--experiments=no_use_multiple_sdk_containers --number_of_worker_harness_threads=4)
command=(python -m tfds_builders.prepare "$@" --data_dir "gs://$BUCKET/data" --beam "${options[*]}")
if $dry; then
  printf '%q ' "${command[@]}"
  echo
else
  exec "${command[@]}"
fi
