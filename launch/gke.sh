#!/usr/bin/env bash
# Trains on GKE with gke_jobset.yaml.
#
#   IMAGE=REGION-docker.pkg.dev/PROJECT/ecg-jax/ecg-jax:TAG launch/gke.sh [--dry-run] \
#       --config configs/etp.py --workdir /runs/etp --config.data_dir=/runs/data
#
# Environment: IMAGE, built with launch/Dockerfile. --dry-run prints what would be applied.
set -euo pipefail
cd "$(dirname "$0")"

dry=false
if [[ ${1:-} == --dry-run ]]; then
  dry=true
  shift
fi
if [[ $# -eq 0 ]]; then
  echo "error: no arguments for the training: --config FILE --workdir DIR" >&2
  exit 2
fi
if [[ -z ${IMAGE:-} ]]; then
  echo "error: IMAGE is not set: the container image, built with launch/Dockerfile" >&2
  exit 2
fi

quoted=""
for argument in "$@"; do
  quoted+="${quoted:+, }'${argument//\'/\'\'}'"
done
manifest=$(<gke_jobset.yaml)
manifest=${manifest/"image: IMAGE"/"image: $IMAGE"}
manifest=${manifest/"args: [ARGUMENTS]"/"args: [$quoted]"}
if $dry; then
  echo "# kubectl apply -f -"
  echo "$manifest"
else
  kubectl apply -f - <<<"$manifest"
fi
