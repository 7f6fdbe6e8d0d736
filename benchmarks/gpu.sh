#!/usr/bin/env bash
# All that a machine with one GPU can say, in at most eight minutes and without a network:
#
#     bash benchmarks/gpu.sh [--out FOLDER] [--only NAMES]
#     bash benchmarks/gpu.sh --small --device cpu      # the same parts on any machine
#
# It needs Python 3.11 or later with jax (CUDA), flax, optax, orbax, transformers, tokenizers,
# safetensors, scipy and tqdm, and PyTorch for the comparison. ml_collections may come as wheels
# (with absl-py and PyYAML) in a folder that WHEELS names. The results are in
# FOLDER/results.json and FOLDER/table.md, and what each part printed beside them.
set -u
cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-python}
if [[ -n ${WHEELS:-} ]]; then
  site=$(mktemp -d)
  "$python" -m pip install --quiet --no-index --no-deps --target "$site" "$WHEELS"/*.whl || exit 2
  export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
exec "$python" -m benchmarks.gpu "$@"
